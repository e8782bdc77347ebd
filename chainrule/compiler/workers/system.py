"""What the thread pool needs of the system and the processor, as LLVM text; see `pool.py`.

`@sleep(word, value)` returns when the word has another value and `@wake(word)` was called; it may
return sooner. `@relax()` is what a polling processor should do. `@float_mode` and
`@set_float_mode` are about rounding and denormal numbers, which each thread sets for itself.
"""

from __future__ import annotations

FUTEX = """
declare i64 @syscall(i64, i64, i64, i64, i64, i64, i64)

define internal void @sleep(ptr %word, i32 %value) {
  %address = ptrtoint ptr %word to i64
  %wide = zext i32 %value to i64
  call i64 @syscall(i64 NUMBER, i64 %address, i64 128, i64 %wide, i64 0, i64 0, i64 0)
  ret void
}

define internal void @wake(ptr %word) {
  %address = ptrtoint ptr %word to i64
  call i64 @syscall(i64 NUMBER, i64 %address, i64 129, i64 1, i64 0, i64 0, i64 0)
  ret void
}
"""

# Where there is no futex: one lock and one condition for all. The zeros are what
# PTHREAD_MUTEX_INITIALIZER and PTHREAD_COND_INITIALIZER are, with macOS's signatures in front.
CONDITION = """
@lock = internal global { i64, [120 x i8] } { i64 LOCK, [120 x i8] zeroinitializer }, align 64
@bell = internal global { i64, [120 x i8] } { i64 BELL, [120 x i8] zeroinitializer }, align 64
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

define internal void @sleep(ptr %word, i32 %value) {
  call i32 @pthread_mutex_lock(ptr @lock)
  br label %check
check:
  %now = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %now, %value
  br i1 %same, label %wait, label %leave
wait:
  call i32 @pthread_cond_wait(ptr @bell, ptr @lock)
  br label %check
leave:
  call i32 @pthread_mutex_unlock(ptr @lock)
  ret void
}

define internal void @wake(ptr %word) {
  call i32 @pthread_mutex_lock(ptr @lock)
  call i32 @pthread_cond_broadcast(ptr @bell)
  call i32 @pthread_mutex_unlock(ptr @lock)
  ret void
}
"""

X86 = """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define internal void @relax() alwaysinline {
  call void @llvm.x86.sse2.pause()
  ret void
}

define internal i64 @float_mode() {
  %place = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %all = load i32, ptr %place
  %mode = and i32 %all, 65472 ; without the flags of what happened so far
  %wide = zext i32 %mode to i64
  ret i64 %wide
}

define internal void @set_float_mode(i64 %wide) {
  %place = alloca i32
  %mode = trunc i64 %wide to i32
  store i32 %mode, ptr %place
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}
"""

ARM = """
declare void @llvm.aarch64.hint(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

define internal void @relax() alwaysinline {
  call void @llvm.aarch64.hint(i32 1)
  ret void
}

define internal i64 @float_mode() {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %mode
}

define internal void @set_float_mode(i64 %mode) {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
"""

OTHER = """
define internal void @relax() alwaysinline {
  ret void
}
define internal i64 @float_mode() {
  ret i64 0
}
define internal void @set_float_mode(i64 %mode) {
  ret void
}
"""

SOLO = """
@chainrule_pool_limit = global i64 1
@chainrule_pool_adapt = global i64 1
@chainrule_pool_counters = global [6 x i64] zeroinitializer
@chainrule_pool_paces = global [4096 x i64] zeroinitializer

define void @chainrule_parallel(ptr %function, ptr %context, i64 %units, i64 %size, i64 %wanted) {
  %some = icmp sgt i64 %units, 0
  br i1 %some, label %run, label %end
run:
  call void %function(ptr %context, i64 0, i64 %units)
  br label %end
end:
  ret void
}

define void @chainrule_pool_close() {
  ret void
}

define void @chainrule_pool_open(i64 %child) {
  ret void
}
"""

FUTEX_NUMBER = {"x86_64": 202, "aarch64": 98}


def system_text(system: str, architecture: str, futex: bool) -> tuple[str, dict[str, int]]:
    """Text and constants for a system (`sys.platform`) and an architecture."""
    apple, bsd = system == "darwin", system.startswith("freebsd")
    number = FUTEX_NUMBER.get(architecture) if futex and system.startswith("linux") else None
    machine = {"x86_64": X86, "aarch64": ARM, "arm64": ARM}.get(architecture, OTHER)
    values = {
        "CLOCK": 6 if apple else 4 if bsd else 1,  # CLOCK_MONOTONIC
        "SETMASK": 3 if apple or bsd else 2,  # SIG_SETMASK
        "LOCK": 0x32AAABA7 if apple else 0,
        "BELL": 0x3CB0B1BB if apple else 0,
        "NUMBER": number or 0,
    }
    return machine + (CONDITION if number is None else FUTEX), values
