"""The thread pool as LLVM text; `threads` loads it once per process. No Python runs in it.

`void @chainrule_parallel(ptr fn, ptr context, i64 units, i64 grain, i64 threads)` calls
`fn(context, low, high)` on chunks of `grain` units until [0, units) is covered. How it works:

- Chunks are dealt out evenly as ranges [front, back), one for each participant, in one 64-bit word
  each. A participant takes from the front of its own (the same data stays near the same core
  from region to region), then from the back of the others'. Taking is one compare-and-exchange.
- The caller is participant 0 and waits only for chunks that others have begun: a worker that
  comes late finds empty ranges. A region cannot end while a taken chunk is unfinished, so what a
  taker reads after taking belongs to this region, whatever it saw before.
- A worker without work spins, longer if its last sleep was short, then sleeps. Worker and caller
  both write first (I sleep; there is work) and read then, in one total order, so that one of
  them sees the other.
- A caller without work spins, then sleeps until the last worker is done.
- What a region takes is remembered by function and units, shared and alone (the first two times,
  and now and then). A function that sharing makes slower runs alone, but for probes. If all
  functions together lose time by it, other programs want the cores, and everything runs alone for
  a while: ten times what was lost, and twice as long each further time.
- One region at a time: a nested or concurrent caller works alone.
- Workers are made when a region first needs them, receive no signals, and take over the caller's
  floating-point mode (rounding, denormals), so that results do not depend on who computes them.
"""

from __future__ import annotations

import re

from chainrule.compiler.workers.system import SOLO, system_text

MOST = 64
PACES = 512

# What `@chainrule_pool_counters` counts.
COUNTERS = ("regions", "alone", "stalls", "naps", "wakes", "created")

STATE = """
%Region = type { ptr, ptr, i64, i64, i64, i64 } ; function, context, units, grain, threads, mode
%Worker = type { i32, i32, i64, i64, i64, [96 x i8] } ; epoch, asleep, range, thread, spin

@chainrule_pool_limit = global i64 1, align 64
@chainrule_pool_adapt = global i64 1, align 8
@chainrule_pool_counters = global [6 x i64] zeroinitializer, align 64
@region = internal global %Region zeroinitializer, align 128
@done = internal global i32 0, align 128
@waiting = internal global i32 0, align 4
@busy = internal global i32 0, align 128
@closed = internal global i32 0, align 4
@started = internal global i64 1, align 8
@workers = internal global [64 x %Worker] zeroinitializer, align 128

declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)
declare i32 @clock_gettime(i32, ptr)
declare i32 @usleep(i32)
declare i32 @sched_yield()
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

define internal i64 @now() {
  %time = alloca { i64, i64 }
  call i32 @clock_gettime(i32 CLOCK, ptr %time)
  %seconds = load i64, ptr %time
  %at = getelementptr { i64, i64 }, ptr %time, i64 0, i32 1
  %nanoseconds = load i64, ptr %at
  %scaled = mul i64 %seconds, 1000000000
  %sum = add i64 %scaled, %nanoseconds
  ret i64 %sum
}

define internal void @count(i64 %which) {
  %at = getelementptr i64, ptr @chainrule_pool_counters, i64 %which
  %old = load atomic i64, ptr %at monotonic, align 8
  %new = add i64 %old, 1
  store atomic i64 %new, ptr %at monotonic, align 8
  ret void
}

; Poll until the word has another value than this one: true, or false after `budget` nanoseconds.
define internal i1 @spin(ptr %word, i32 %value, i64 %budget) {
entry:
  br label %poll
poll:
  %turn = phi i32 [ 0, %entry ], [ %next, %pause ], [ %next, %clock ]
  %end = phi i64 [ 0, %entry ], [ %end, %pause ], [ %until, %clock ]
  %current = load atomic i32, ptr %word acquire, align 4
  %same = icmp eq i32 %current, %value
  br i1 %same, label %pause, label %changed
pause:
  call void @relax()
  %next = add i32 %turn, 1
  %rest = and i32 %next, 31
  %due = icmp eq i32 %rest, 0
  br i1 %due, label %clock, label %poll
clock:
  call i32 @sched_yield() ; the one that is waited for may need this very core
  %time = call i64 @now()
  %first = icmp eq i64 %end, 0
  %limit = add i64 %time, %budget
  %until = select i1 %first, i64 %limit, i64 %end
  %late = icmp sge i64 %time, %until
  br i1 %late, label %tired, label %poll
changed:
  ret i1 true
tired:
  ret i1 false
}
"""

TAKING = """
; A chunk's number, or -1: from the front of one's own range, then from the back of the others'.
define internal i64 @take(i64 %self, i64 %threads) {
entry:
  %own = getelementptr %Worker, ptr @workers, i64 %self, i32 2
  %first = load atomic i64, ptr %own monotonic, align 8
  br label %front
front:
  %seen = phi i64 [ %first, %entry ], [ %changed, %advance ]
  %low = and i64 %seen, 4294967295
  %high = lshr i64 %seen, 32
  %left = icmp ult i64 %low, %high
  br i1 %left, label %advance, label %other
advance:
  %advanced = add i64 %seen, 1
  %swap = cmpxchg ptr %own, i64 %seen, i64 %advanced acquire monotonic, align 8
  %changed = extractvalue { i64, i1 } %swap, 0
  %won = extractvalue { i64, i1 } %swap, 1
  br i1 %won, label %got.front, label %front
got.front:
  ret i64 %low
other:
  %step = phi i64 [ 1, %front ], [ %next, %back ]
  %more = icmp slt i64 %step, %threads
  br i1 %more, label %visit, label %nothing
visit:
  %sum = add i64 %self, %step
  %whom = urem i64 %sum, %threads
  %theirs = getelementptr %Worker, ptr @workers, i64 %whom, i32 2
  %initial = load atomic i64, ptr %theirs monotonic, align 8
  %next = add i64 %step, 1
  br label %back
back:
  %old = phi i64 [ %initial, %visit ], [ %fresh, %retreat ]
  %bottom = and i64 %old, 4294967295
  %top = lshr i64 %old, 32
  %some = icmp ult i64 %bottom, %top
  br i1 %some, label %retreat, label %other
retreat:
  %retreated = sub i64 %old, 4294967296
  %exchange = cmpxchg ptr %theirs, i64 %old, i64 %retreated acquire monotonic, align 8
  %fresh = extractvalue { i64, i1 } %exchange, 0
  %taken = extractvalue { i64, i1 } %exchange, 1
  br i1 %taken, label %got.back, label %back
got.back:
  %last = sub i64 %top, 1
  ret i64 %last
nothing:
  ret i64 -1
}

; Work until nothing is left; how many chunks that were.
define internal i32 @work(i64 %self, i64 %threads) {
entry:
  br label %again
again:
  %count = phi i32 [ 0, %entry ], [ %more, %run ]
  %chunk = call i64 @take(i64 %self, i64 %threads)
  %none = icmp slt i64 %chunk, 0
  br i1 %none, label %end, label %begin
begin:
  %function = load ptr, ptr @region
  %context = load ptr, ptr getelementptr (%Region, ptr @region, i64 0, i32 1)
  %units = load i64, ptr getelementptr (%Region, ptr @region, i64 0, i32 2)
  %grain = load i64, ptr getelementptr (%Region, ptr @region, i64 0, i32 3)
  %mode = load i64, ptr getelementptr (%Region, ptr @region, i64 0, i32 5)
  %mine = call i64 @float_mode()
  %agree = icmp eq i64 %mine, %mode
  br i1 %agree, label %run, label %adopt
adopt:
  call void @set_float_mode(i64 %mode)
  br label %run
run:
  %low = mul i64 %chunk, %grain
  %beyond = add i64 %low, %grain
  %high = call i64 @llvm.smin.i64(i64 %beyond, i64 %units)
  call void %function(ptr %context, i64 %low, i64 %high)
  %more = add i32 %count, 1
  br label %again
end:
  ret i32 %count
}
"""

PACE = """
; function, units, nanoseconds alone, nanoseconds shared, how many regions so far
%Pace = type { ptr, i64, i64, i64, i64, [24 x i8] }
@chainrule_pool_paces = global [512 x %Pace] zeroinitializer, align 64
@alone_until = internal global i64 0, align 8
@alone_for = internal global i64 0, align 8
@gained = internal global i64 0, align 8

define internal ptr @pace(ptr %function, i64 %units) {
entry:
  %place = ptrtoint ptr %function to i64
  %mixed = mul i64 %units, -7046029254386353131
  %both = xor i64 %place, %mixed
  %hash = mul i64 %both, -7046029254386353131
  %index = lshr i64 %hash, 55
  %at = getelementptr [512 x %Pace], ptr @chainrule_pool_paces, i64 0, i64 %index
  %units.at = getelementptr %Pace, ptr %at, i64 0, i32 1
  %known = load ptr, ptr %at
  %known.units = load i64, ptr %units.at
  %same = icmp eq ptr %known, %function
  %same.units = icmp eq i64 %known.units, %units
  %found = and i1 %same, %same.units
  br i1 %found, label %end, label %fresh
fresh:
  store %Pace zeroinitializer, ptr %at
  store ptr %function, ptr %at
  store i64 %units, ptr %units.at
  br label %end
end:
  ret ptr %at
}

; A moving average over some eight regions; an outlier counts as twice the average.
define internal void @learn(ptr %at, i64 %time, i64 %first.most) {
  %old = load i64, ptr %at
  %first = icmp eq i64 %old, 0
  %start = call i64 @llvm.smin.i64(i64 %time, i64 %first.most)
  %most = shl i64 %old, 1
  %clipped = call i64 @llvm.smin.i64(i64 %time, i64 %most)
  %change = sub i64 %clipped, %old
  %part = sdiv i64 %change, 8
  %average = add i64 %old, %part
  %new = select i1 %first, i64 %start, i64 %average
  store i64 %new, ptr %at
  ret void
}

; The first two times of a function, while others disturb, and when sharing did not pay: then 8
; regions in 64 are shared, to see whether it pays now (8, for the first ones wake the workers).
; Where sharing pays, one region now and then is alone, likewise.
define internal i1 @prefers_alone(ptr %pace, i64 %time, i64 %threads) {
entry:
  %turn.at = getelementptr %Pace, ptr %pace, i64 0, i32 4
  %turn = load i64, ptr %turn.at
  %next = add i64 %turn, 1
  store i64 %next, ptr %turn.at
  %until = load i64, ptr @alone_until
  %disturbed = icmp slt i64 %time, %until
  %new = icmp slt i64 %turn, 2
  %adapt = load atomic i64, ptr @chainrule_pool_adapt monotonic, align 8
  %fixed = icmp eq i64 %adapt, 0
  br i1 %fixed, label %share, label %begin
share:
  ret i1 false
begin:
  %must = or i1 %disturbed, %new
  br i1 %must, label %alone, label %compare
compare:
  %alone.at = getelementptr %Pace, ptr %pace, i64 0, i32 2
  %shared.at = getelementptr %Pace, ptr %pace, i64 0, i32 3
  %alone.time = load i64, ptr %alone.at
  %shared.time = load i64, ptr %shared.at
  %slower = icmp sgt i64 %shared.time, %alone.time
  %period = mul i64 %threads, 128
  %rest.shared = urem i64 %turn, %period
  %rest.alone = and i64 %turn, 63
  %refresh = icmp eq i64 %rest.shared, 0
  %no.probe = icmp sge i64 %rest.alone, 10
  %answer = select i1 %slower, i1 %no.probe, i1 %refresh
  ret i1 %answer
alone:
  ret i1 true
}

; After a shared region. What all functions together have gained of late, at most BEST, tells
; whether others disturb: a hiccup is forgiven where sharing gains much, a second one is not.
define internal void @judge(ptr %pace, i64 %time, i64 %now) {
entry:
  %alone.at = getelementptr %Pace, ptr %pace, i64 0, i32 2
  %shared.at = getelementptr %Pace, ptr %pace, i64 0, i32 3
  %alone = load i64, ptr %alone.at
  call void @learn(ptr %shared.at, i64 %time, i64 %alone)
  %gain = sub i64 %alone, %time
  %before = load i64, ptr @gained
  %sum = add i64 %before, %gain
  %gained = call i64 @llvm.smin.i64(i64 %sum, i64 BEST)
  store i64 %gained, ptr @gained
  %penalty = load i64, ptr @alone_for
  %lost = icmp slt i64 %gained, LOSS
  br i1 %lost, label %punish, label %more
punish:
  call void @count(i64 2)
  %double = shl i64 %penalty, 1
  %tenfold = mul i64 %gained, -10
  %longer = call i64 @llvm.smax.i64(i64 %double, i64 %tenfold)
  %bounded = call i64 @llvm.smin.i64(i64 %longer, i64 LONGEST_ALONE)
  %until = add i64 %now, %bounded
  store i64 %bounded, ptr @alone_for
  store i64 %until, ptr @alone_until
  store i64 0, ptr @gained
  store i64 0, ptr %shared.at ; not this function's fault
  ret void
more:
  %best = icmp eq i64 %gained, BEST
  br i1 %best, label %forgive, label %end
forgive:
  %half = lshr i64 %penalty, 1
  store i64 %half, ptr @alone_for
  br label %end
end:
  ret void
}
"""

WORKER = """
define internal ptr @worker(ptr %argument) {
entry:
  %self = ptrtoint ptr %argument to i64
  %epoch = getelementptr %Worker, ptr @workers, i64 %self, i32 0
  %asleep = getelementptr %Worker, ptr @workers, i64 %self, i32 1
  br label %idle
idle:
  %seen = phi i32 [ 0, %entry ], [ %current, %busy ], [ %current, %report ], [ %current, %rouse ]
  %spin = phi i64 [ SPIN, %entry ], [ %spin.now, %busy ], [ %spin.now, %report ],
                  [ %spin.now, %rouse ]
  %called = call i1 @spin(ptr %epoch, i32 %seen, i64 %spin)
  br i1 %called, label %look, label %bed
bed:
  %evening = call i64 @now()
  br label %lie
lie:
  store atomic i32 1, ptr %asleep seq_cst, align 4
  %still = load atomic i32, ptr %epoch seq_cst, align 4
  %quiet = icmp eq i32 %still, %seen
  br i1 %quiet, label %nap, label %rise
nap:
  call void @sleep(ptr %epoch, i32 %seen)
  br label %lie
rise:
  store atomic i32 0, ptr %asleep monotonic, align 4
  %morning = call i64 @now()
  %slept = sub i64 %morning, %evening
  %short = icmp slt i64 %slept, SHORT
  %doubled = shl i64 %spin, 1
  %halved = lshr i64 %spin, 1
  %longer = call i64 @llvm.smin.i64(i64 %doubled, i64 LONGEST)
  %shorter = call i64 @llvm.smax.i64(i64 %halved, i64 SHORTEST)
  %learnt = select i1 %short, i64 %longer, i64 %shorter
  br label %look
look:
  %spin.now = phi i64 [ %spin, %idle ], [ %learnt, %rise ]
  %current = load atomic i32, ptr %epoch acquire, align 4
  %shut = load atomic i32, ptr @closed monotonic, align 4
  %over = icmp ne i32 %shut, 0
  br i1 %over, label %leave, label %busy
busy:
  %threads.at = getelementptr %Region, ptr @region, i64 0, i32 4
  %racy = load atomic i64, ptr %threads.at monotonic, align 8
  %count = call i32 @work(i64 %self, i64 %racy)
  %idler = icmp eq i32 %count, 0
  br i1 %idler, label %idle, label %report
report:
  %before = atomicrmw add ptr @done, i32 %count seq_cst
  %awaited = load atomic i32, ptr @waiting seq_cst, align 4
  %needed = icmp ne i32 %awaited, 0
  br i1 %needed, label %rouse, label %idle
rouse:
  call void @wake(ptr @done)
  br label %idle
leave:
  ret ptr null
}

; Make workers until there are `threads` participants; how many there are.
define internal i64 @recruit(i64 %threads) {
entry:
  %all = alloca [128 x i8], align 16
  %old = alloca [128 x i8], align 16
  call i32 @sigfillset(ptr %all)
  call i32 @pthread_sigmask(i32 SETMASK, ptr %all, ptr %old)
  br label %check
check:
  %have = load i64, ptr @started
  %enough = icmp sge i64 %have, %threads
  br i1 %enough, label %end, label %make
make:
  %one = getelementptr %Worker, ptr @workers, i64 %have
  %asleep = getelementptr %Worker, ptr %one, i64 0, i32 1
  %thread = getelementptr %Worker, ptr %one, i64 0, i32 3
  store i32 0, ptr %one
  store i32 0, ptr %asleep
  %argument = inttoptr i64 %have to ptr
  %failed = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %argument)
  %fine = icmp eq i32 %failed, 0
  br i1 %fine, label %made, label %end
made:
  %next = add i64 %have, 1
  store i64 %next, ptr @started
  call void @count(i64 5)
  br label %check
end:
  call i32 @pthread_sigmask(i32 SETMASK, ptr %old, ptr null)
  %final = load i64, ptr @started
  ret i64 %final
}
"""

PARALLEL = """
define void @chainrule_parallel(ptr %function, ptr %context, i64 %units, i64 %size, i64 %wanted) {
entry:
  %none = icmp sle i64 %units, 0
  br i1 %none, label %finished, label %measure
measure:
  ; Chunk numbers have 31 bits; the number of threads has no say in where chunks begin.
  %least = lshr i64 %units, 30
  %smallest = add i64 %least, 1
  %grain = call i64 @llvm.smax.i64(i64 %size, i64 %smallest)
  %rounded = add i64 %units, %grain
  %less = sub i64 %rounded, 1
  %chunks = udiv i64 %less, %grain
  %limit = load atomic i64, ptr @chainrule_pool_limit monotonic, align 8
  %allowed = call i64 @llvm.smin.i64(i64 %wanted, i64 %limit)
  %useful = call i64 @llvm.smin.i64(i64 %allowed, i64 %chunks)
  %several = icmp sgt i64 %useful, 1
  br i1 %several, label %enter, label %solo
enter:
  %try = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic, align 4
  %entered = extractvalue { i32, i1 } %try, 1
  br i1 %entered, label %open, label %solo
open:
  %shut = load atomic i32, ptr @closed seq_cst, align 4
  %refused = icmp ne i32 %shut, 0
  br i1 %refused, label %leave, label %consider
consider:
  %start = call i64 @now()
  %pace = call ptr @pace(ptr %function, i64 %units)
  %alone = call i1 @prefers_alone(ptr %pace, i64 %start, i64 %useful)
  br i1 %alone, label %measured, label %staff
measured:
  call void %function(ptr %context, i64 0, i64 %units)
  call void @count(i64 1)
  %finish = call i64 @now()
  %took = sub i64 %finish, %start
  %alone.at = getelementptr %Pace, ptr %pace, i64 0, i32 2
  call void @learn(ptr %alone.at, i64 %took, i64 9223372036854775807)
  br label %free
leave:
  store atomic i32 0, ptr @busy release, align 4
  br label %solo
solo:
  call void %function(ptr %context, i64 0, i64 %units)
  br label %finished
finished:
  ret void

staff:
  %have = load i64, ptr @started
  %few = icmp slt i64 %have, %useful
  br i1 %few, label %more, label %publish
more:
  %hired = call i64 @recruit(i64 %useful)
  br label %publish
publish:
  %staffed = phi i64 [ %have, %staff ], [ %hired, %more ]
  %threads = call i64 @llvm.smin.i64(i64 %useful, i64 %staffed)
  call void @count(i64 0)
  %mode = call i64 @float_mode()
  store ptr %function, ptr @region
  store ptr %context, ptr getelementptr (%Region, ptr @region, i64 0, i32 1)
  store i64 %units, ptr getelementptr (%Region, ptr @region, i64 0, i32 2)
  store i64 %grain, ptr getelementptr (%Region, ptr @region, i64 0, i32 3)
  %threads.at = getelementptr %Region, ptr @region, i64 0, i32 4
  store atomic i64 %threads, ptr %threads.at monotonic, align 8
  store i64 %mode, ptr getelementptr (%Region, ptr @region, i64 0, i32 5)
  store atomic i32 0, ptr @done monotonic, align 4
  store atomic i32 0, ptr @waiting monotonic, align 4
  br label %deal
deal:
  %who = phi i64 [ 0, %publish ], [ %who.next, %deal ]
  %front = phi i64 [ 0, %publish ], [ %back, %deal ]
  %who.next = add i64 %who, 1
  %share = mul i64 %who.next, %chunks
  %back = udiv i64 %share, %threads
  %high = shl i64 %back, 32
  %range = or i64 %high, %front
  %range.at = getelementptr %Worker, ptr @workers, i64 %who, i32 2
  store atomic i64 %range, ptr %range.at release, align 8
  %dealt = icmp eq i64 %who.next, %threads
  br i1 %dealt, label %call, label %deal
call:
  %whom = phi i64 [ 1, %deal ], [ %whom.next, %called ]
  %last = icmp sge i64 %whom, %threads
  br i1 %last, label %toil, label %ring
ring:
  %epoch = getelementptr %Worker, ptr @workers, i64 %whom, i32 0
  %asleep = getelementptr %Worker, ptr @workers, i64 %whom, i32 1
  %old.epoch = atomicrmw add ptr %epoch, i32 1 seq_cst
  %bed = load atomic i32, ptr %asleep seq_cst, align 4
  %sleeps = icmp ne i32 %bed, 0
  br i1 %sleeps, label %rouse, label %called
rouse:
  store atomic i32 0, ptr %asleep monotonic, align 4
  call void @count(i64 4)
  call void @wake(ptr %epoch)
  br label %called
called:
  %whom.next = add i64 %whom, 1
  br label %call

toil:
  %own = call i32 @work(i64 0, i64 %threads)
  %chunks.small = trunc i64 %chunks to i32
  %others = sub i32 %chunks.small, %own
  %quick = load atomic i32, ptr @done acquire, align 4
  %complete = icmp eq i32 %quick, %others
  br i1 %complete, label %judge, label %await.spin
await.spin:
  %reported = phi i32 [ %quick, %toil ], [ %again, %await.more ]
  %changed = call i1 @spin(ptr @done, i32 %reported, i64 WAIT)
  br i1 %changed, label %await.more, label %await.sleep
await.more:
  %again = load atomic i32, ptr @done acquire, align 4
  %ready = icmp eq i32 %again, %others
  br i1 %ready, label %judge, label %await.spin
await.sleep:
  call void @count(i64 3)
  store atomic i32 1, ptr @waiting seq_cst, align 4
  br label %await.check
await.check:
  %state = load atomic i32, ptr @done seq_cst, align 4
  %over = icmp eq i32 %state, %others
  br i1 %over, label %judge, label %await.nap
await.nap:
  call void @sleep(ptr @done, i32 %state)
  br label %await.check

judge:
  %end = call i64 @now()
  %time = sub i64 %end, %start
  call void @judge(ptr %pace, i64 %time, i64 %end)
  br label %free
free:
  store atomic i32 0, ptr @busy release, align 4
  ret void
}
"""

STOPPING = """
; End all workers and wait for them; regions run alone until @chainrule_pool_open.
define void @chainrule_pool_close() {
entry:
  store atomic i32 1, ptr @closed seq_cst, align 4
  br label %try
try:
  %attempt = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic, align 4
  %entered = extractvalue { i32, i1 } %attempt, 1
  br i1 %entered, label %next, label %wait
wait:
  call i32 @usleep(i32 50)
  br label %try
next:
  %count = load i64, ptr @started
  %some = icmp sgt i64 %count, 1
  br i1 %some, label %end.one, label %finish
end.one:
  %last = sub i64 %count, 1
  store i64 %last, ptr @started
  %epoch = getelementptr %Worker, ptr @workers, i64 %last, i32 0
  %at = getelementptr %Worker, ptr @workers, i64 %last, i32 3
  %old = atomicrmw add ptr %epoch, i32 1 seq_cst
  call void @wake(ptr %epoch)
  %thread = load i64, ptr %at
  call i32 @pthread_join(i64 %thread, ptr null)
  br label %next
finish:
  store atomic i32 0, ptr @busy release, align 4
  ret void
}

; Regions may use workers again. In the child of a fork: whoever held the pool is not there.
define void @chainrule_pool_open(i64 %child) {
entry:
  %forked = icmp ne i64 %child, 0
  br i1 %forked, label %forget, label %open
forget:
  store i64 1, ptr @started
  store i64 0, ptr @alone_until
  store atomic i32 0, ptr @busy monotonic, align 4
  br label %open
open:
  store atomic i32 0, ptr @closed seq_cst, align 4
  ret void
}
"""

# Nanoseconds. A worker polls for SHORTEST..LONGEST before it sleeps; a sleep below SHORT was one
# that it had better not begun. A caller polls for WAIT.
TIMES = {
    "SPIN": 50_000, "SHORTEST": 20_000, "LONGEST": 200_000, "SHORT": 1_000_000, "WAIT": 50_000,
    "BEST": 5_000_000, "LOSS": -1_000_000, "LONGEST_ALONE": 400_000_000,
}


def text(system: str, architecture: str, futex: bool = True) -> str:
    """The pool for a system (`sys.platform`) and an architecture (first word of the triple)."""
    if system.startswith(("win", "emscripten", "wasi")):
        return SOLO
    below, values = system_text(system, architecture, futex)
    whole = f"{below}{STATE}{TAKING}{PACE}{WORKER}{PARALLEL}{STOPPING}"
    values |= TIMES
    return re.sub(r"\b[A-Z][A-Z_]+\b", lambda m: str(values.get(m[0], m[0])), whole)
