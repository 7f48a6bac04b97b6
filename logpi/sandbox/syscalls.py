"""The system calls that a confined program may make, and their numbers on x86-64 and aarch64.

The list allows reading and writing open files, opening files (Landlock chooses which), memory,
threads, clocks, waiting. All other calls fail with EPERM: every way to start a process, to reach
another one, to make a network socket, to change a file's mode, owner or times (Landlock does not
guard those), to mount, to trace, to load code into the kernel (also a socket's filter), to address
a socket or to hand a file to one (`sendmsg`), and shared memory by name. Left out: other machines,
on which the sandbox refuses to run.
"""

from __future__ import annotations

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000  # x86-64 knows a second set of numbers; a filter that forgets them has a hole

_BOTH = """
    read 0 63|write 1 64|openat 257 56|close 3 57|close_range 436 436|fstat 5 80|newfstatat 262 79|statx 332 291
    lseek 8 62|mmap 9 222|mprotect 10 226|munmap 11 215|brk 12 214|mremap 25 216|madvise 28 233|msync 26 227
    rt_sigaction 13 134|rt_sigprocmask 14 135|rt_sigreturn 15 139|rt_sigpending 127 136|rt_sigtimedwait 128 137
    rt_sigsuspend 130 133|sigaltstack 131 132|ioctl 16 29|fcntl 72 25|flock 73 32|pread64 17 67|pwrite64 18 68
    readv 19 65|writev 20 66|preadv 295 69|pwritev 296 70|faccessat 269 48|pipe2 293 59|dup 32 23|dup3 292 24
    pselect6 270 72|ppoll 271 73|epoll_create1 291 20|epoll_ctl 233 21|epoll_pwait 281 22|eventfd2 290 19
    timerfd_create 283 85|timerfd_settime 286 86|timerfd_gettime 287 87|nanosleep 35 101|clock_nanosleep 230 115
    clock_gettime 228 113|clock_getres 229 114|gettimeofday 96 169|times 100 153|getrusage 98 165|setitimer 38 103
    getitimer 36 102|timer_create 222 107|timer_settime 223 110|timer_gettime 224 108|timer_getoverrun 225 109
    timer_delete 226 111|getpid 39 172|getppid 110 173|gettid 186 178|getuid 102 174|geteuid 107 175|getgid 104 176
    getegid 108 177|getresuid 118 148|getresgid 120 150|getgroups 115 158|getpgid 121 155|getsid 124 156|uname 63 160
    sysinfo 99 179|getcpu 309 168|sched_getaffinity 204 123|sched_yield 24 124|sched_getscheduler 145 120
    sched_getparam 143 121|sched_get_priority_max 146 125|sched_get_priority_min 147 126|getpriority 140 141
    getrlimit 97 163|exit 60 93|exit_group 231 94|wait4 61 260|waitid 247 95|futex 202 98|set_tid_address 218 96
    set_robust_list 273 99|get_robust_list 274 100|rseq 334 293|membarrier 324 283|restart_syscall 219 128|getcwd 79 17
    chdir 80 49|fchdir 81 50|getdents64 217 61|readlinkat 267 78|renameat 264 38|renameat2 316 276|mkdirat 258 34
    unlinkat 263 35|symlinkat 266 36|linkat 265 37|ftruncate 77 46|fallocate 285 47|fsync 74 82|fdatasync 75 83
    fadvise64 221 223|copy_file_range 326 285|sendfile 40 71|umask 95 166|fstatfs 138 44|statfs 137 43|socketpair 53 199
    sendto 44 206|recvfrom 45 207|recvmsg 47 212|shutdown 48 210|getsockname 51 204|getpeername 52 205
    getsockopt 55 209|getrandom 318 278|mlock 149 228|munlock 150 229
    clone 56 220|clone3 435 435|kill 62 129|tgkill 234 131|prlimit64 302 261|faccessat2 439 439|openat2 437 437
    futex_waitv 449 449|epoll_pwait2 441 441
"""
_X86_64_ONLY = """
    open 2|creat 85|stat 4|lstat 6|pause 34|access 21|pipe 22|dup2 33|select 23|poll 7|epoll_create 213|epoll_wait 232
    time 201|alarm 37|getpgrp 111|arch_prctl 158|readlink 89|rename 82|mkdir 83|rmdir 84|unlink 87|symlink 88|link 86
"""


def _numbers(column: int) -> dict[str, int]:
    rows = [entry.split() for entry in _BOTH.replace("\n", "|").split("|") if entry.strip()]
    return {row[0]: int(row[column]) for row in rows}


_old = [entry.split() for entry in _X86_64_ONLY.replace("\n", "|").split("|") if entry.strip()]
NUMBERS = {
    "x86_64": _numbers(1) | {name: int(number) for name, number in _old},
    "aarch64": _numbers(2),
}
