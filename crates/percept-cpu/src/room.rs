//! Room that a thread keeps from task to task, and from call to call.
//!
//! New memory would be cleared first: by the system, which is given back what is free, and by us.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static ROOM: RefCell<HashMap<TypeId, Box<dyn Any>>> = RefCell::default();
}

/// Calls `f` with what it left in its room the last time in this thread: nothing at first.
pub(crate) fn with_room<T: Default + 'static>(f: impl FnOnce(&mut T)) {
    // Taken out, so that `f` may ask for room itself.
    let kept = ROOM.with_borrow_mut(|room| room.remove(&TypeId::of::<T>()));
    let mut room: Box<T> = kept
        .and_then(|room| room.downcast().ok())
        .unwrap_or_default();
    f(&mut room);
    ROOM.with_borrow_mut(|all| all.insert(TypeId::of::<T>(), room));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_by_its_kind_and_thread() {
        with_room(|numbers: &mut Vec<f32>| {
            assert!(numbers.is_empty());
            numbers.resize(3, 1.0);
            // Of the same kind, while that is in use.
            with_room(|others: &mut Vec<f32>| assert!(others.is_empty()));
        });
        with_room(|bytes: &mut Vec<u8>| assert!(bytes.is_empty()));
        with_room(|numbers: &mut Vec<f32>| assert_eq!(*numbers, [1.0; 3]));
        let elsewhere = std::thread::spawn(|| {
            with_room(|numbers: &mut Vec<f32>| assert!(numbers.is_empty()));
        });
        assert!(elsewhere.join().is_ok());
    }
}
