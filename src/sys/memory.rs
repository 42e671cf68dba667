//! The allocator's memory.

/// Gives memory that the program has freed back to the kernel: the allocator keeps it otherwise, for a next time that may never
/// come. Takes some milliseconds for a hundred MiB, in which others' allocations wait.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no precondition and may be called at any time from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
