//! Large buffers apart from the heap.

#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "a setting of the C library")
)]

/// Has the system's allocator take each buffer of 1 MiB or more from the system, and give it back when it is freed. Returns whether it does.
///
/// By itself it puts buffers of up to 32 MiB on heaps once one of them was freed, where small ones that stay keep the room of large ones
/// that have gone. The price is that pages are cleared anew. Contents do not change.
pub fn map_large_buffers() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call changes how memory is found from now on, and no memory.
    return unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20) == 1 };
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}
