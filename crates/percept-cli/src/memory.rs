//! What the allocator does with memory that is freed (docs/performance.md).

/// mimalloc's number of the option that says how many milliseconds freed memory stays with the program, which its
/// bindings do not name.
const PURGE_DELAY: std::ffi::c_int = 15;

/// Its own second is less than a step of training takes, and the next one needs as much memory again: for good.
pub const FOR_TRAINING: std::ffi::c_long = -1;

/// What a tensor was read into is of no use when it has been packed: any time at all would add the largest matrices to the
/// most that a command needs.
pub const FOR_LOADING: std::ffi::c_long = 0;

/// The next photo needs what the last one did.
const FOR_PHOTOS: std::ffi::c_long = 20;

/// How long freed memory stays with the program. `MIMALLOC_PURGE_DELAY` goes before it.
#[allow(unsafe_code, reason = "the allocator has its options in C alone")]
pub fn keep_what_is_freed(milliseconds: std::ffi::c_long) {
    // SAFETY: it takes two numbers, and ignores an option that does not exist.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, milliseconds) };
    // What was freed before `main` waits for the time that was valid then, and what comes after it waits with it.
    give_back();
}

/// To be called when a model is loaded: what read it, in threads of the pool too, has left pages that are used in part.
/// They go back to the system, and what photos free is kept for a while.
pub fn turn_to_photos() {
    keep_what_is_freed(FOR_PHOTOS);
    rayon::broadcast(|_| give_back());
}

/// Gives what this thread has free back to the system at once.
#[allow(unsafe_code, reason = "the allocator has this in C alone")]
fn give_back() {
    // SAFETY: it gives back what nobody uses.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// mimalloc asks for pages of two megabytes, which stay empty in part: a fifth to a third of the memory of a command
/// that reads a model, for no time that could be measured. Training fills them.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the system has this in C alone")]
pub fn refuse_huge_pages() {
    const REFUSED: libc::c_ulong = 1;
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: it takes numbers and touches no memory. A system that does not know it goes on as before.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, REFUSED, UNUSED, UNUSED, UNUSED) };
}

#[cfg(not(target_os = "linux"))]
pub fn refuse_huge_pages() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code, reason = "the allocator has its options in C alone")]
    fn the_allocator_has_the_option_where_it_is_set() {
        // SAFETY: it takes a number.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
            println!("SKIPPED: MIMALLOC_PURGE_DELAY is set");
            return;
        }
        assert_eq!(delay(), 1000, "not the default of mi_option_purge_delay");
        keep_what_is_freed(FOR_TRAINING);
        assert_eq!(delay(), FOR_TRAINING);
    }
}
