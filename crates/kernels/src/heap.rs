//! One heap for all threads.

#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "a setting of the C library")
)]

/// Has the system's allocator keep one heap instead of one for each thread. Returns whether it does.
///
/// What one thread has freed can then become another's, which saves memory where threads hold large buffers in turn, and costs time where
/// they allocate much. Threads that have a heap of their own by then keep it; contents do not change.
pub fn share_heap() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call changes how memory is found from now on, and no memory.
    return unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) == 1 };
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}
