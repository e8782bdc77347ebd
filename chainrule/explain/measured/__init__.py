"""What is measured rather than derived: the cost of a gradient, and what depth does to it.

command       `chainrule explain cost` and `chainrule explain depth`
problem       what is measured: a network of the user's, or one made here
cost          the report on C1 to C3 and C7, from
              passes (differences, forward mode, backpropagation), ratios (a step ÷ a forward pass),
              applications (what is computed how often), steps (the error by the step)
depth         the report on one network; study: the one on standard stacks, C4 and C5
layers        a recorded graph as layers with measured factors; stacks and starting make graphs
document      sentences, tables and charts as text, HTML, SVG, PNG and JSON
chart         curves and axes as data; chart_text, chart_svg and chart_png draw them
"""
