"""Beginnings that the rules' small programs share."""

REGRESSION = """\
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
x = cr.randn(64, 3)
y = x @ cr.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * cr.randn(64, 1)
model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
"""

CLASSES = """\
import chainrule as cr
from chainrule import nn

cr.manual_seed(0)
x = cr.randn(64, 4)
y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
"""

OPTIMIZER = """\
optimizer = cr.optim.SGD(model.parameters(), lr=0.05)
"""

LOOP = """\
for step in range(12):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
"""

MSE = "loss_fn = nn.MSELoss()\n"
ENTROPY = "loss_fn = nn.CrossEntropyLoss()\n"
