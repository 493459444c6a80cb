//! Photos that are kept for a while, so that their tokens are computed once.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lru::LruCache;
use percept::TokenGrid;
use percept::image::Note;

use crate::config::SessionLimits;
use crate::upload::Photo;

/// Random bytes of an id: not to be guessed.
const ID_BYTES: usize = 24;

/// A photo and its tokens.
#[derive(Debug)]
pub(crate) struct Session {
    /// The photo as it was uploaded.
    pub(crate) photo: Photo,
    /// Width and height of the upright photo, in pixels.
    pub(crate) size: [u32; 2],
    /// Its tokens.
    pub(crate) grid: Arc<TokenGrid>,
    /// Short side at which they were computed, in pixels.
    pub(crate) encoded_at: u32,
    /// What is odd about the file.
    pub(crate) notes: Vec<Note>,
}

impl Session {
    fn bytes(&self) -> usize {
        let floats = self.grid.patches.len() + self.grid.cls.len();
        self.photo.bytes.len() + floats * size_of::<f32>()
    }
}

/// The photos that are kept: bounded in number, bytes and time.
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: SessionLimits,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    by_id: LruCache<String, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    used: Instant,
}

impl Kept {
    /// Forgets the photo unused for longest; `false` if there is none.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, entry)) = self.by_id.pop_lru() else {
            return false;
        };
        self.bytes = self.bytes.saturating_sub(entry.session.bytes());
        true
    }
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        let by_id = LruCache::unbounded();
        Self {
            limits,
            kept: Mutex::new(Kept { by_id, bytes: 0 }),
        }
    }

    /// Keeps a photo and gives its id. Others make room where they must; a photo that is larger than
    /// all the room is not kept, and its id is unknown from the start.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn insert(&self, session: Session) -> Result<String, getrandom::Error> {
        let mut random = [0; ID_BYTES];
        getrandom::fill(&mut random)?;
        let id = URL_SAFE_NO_PAD.encode(random);
        let bytes = session.bytes();
        let count = NonZeroUsize::new(self.limits.count).map_or(1, usize::from);
        if bytes > self.limits.bytes {
            return Ok(id);
        }
        let mut kept = self.lock();
        self.sweep(&mut kept);
        while kept.by_id.len() >= count || kept.bytes + bytes > self.limits.bytes {
            if !kept.forget_oldest() {
                break;
            }
        }
        kept.bytes += bytes;
        let entry = Entry {
            session: Arc::new(session),
            used: Instant::now(),
        };
        kept.by_id.put(id.clone(), entry);
        Ok(id)
    }

    /// The photo of an id, which counts as used.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Session>> {
        let mut kept = self.lock();
        self.sweep(&mut kept);
        let entry = kept.by_id.get_mut(id)?;
        entry.used = Instant::now();
        Some(Arc::clone(&entry.session))
    }

    /// Forgets a photo; `false` if there is no such id.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let mut kept = self.lock();
        let Some(entry) = kept.by_id.pop(id) else {
            return false;
        };
        kept.bytes = kept.bytes.saturating_sub(entry.session.bytes());
        true
    }

    /// How many photos and bytes are kept, after those unused for too long are forgotten.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let mut kept = self.lock();
        self.sweep(&mut kept);
        (kept.by_id.len(), kept.bytes)
    }

    /// Forgets what was unused for too long.
    fn sweep(&self, kept: &mut Kept) {
        let is_old = |(_, entry): (&String, &Entry)| entry.used.elapsed() > self.limits.idle;
        while kept.by_id.peek_lru().is_some_and(is_old) {
            kept.forget_oldest();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing that is done under the lock leaves it half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn session(bytes: usize) -> Session {
        Session {
            photo: Photo {
                bytes: vec![0; bytes].into(),
                name: "photo".into(),
            },
            size: [1, 1],
            grid: Arc::new(TokenGrid {
                rows: 0,
                columns: 0,
                dim: 1,
                cls: Vec::new(),
                patches: Vec::new(),
            }),
            encoded_at: 448,
            notes: Vec::new(),
        }
    }

    fn sessions(count: usize, bytes: usize, idle: Duration) -> Sessions {
        Sessions::new(SessionLimits { count, bytes, idle })
    }

    const LONG: Duration = Duration::from_secs(1000);

    #[test]
    fn the_least_used_make_room() {
        let sessions = sessions(2, 1000, LONG);
        let first = sessions.insert(session(10)).unwrap();
        let second = sessions.insert(session(10)).unwrap();
        assert!(sessions.get(&first).is_some());
        let third = sessions.insert(session(10)).unwrap();
        assert!(sessions.get(&second).is_none());
        assert!(sessions.get(&first).is_some() && sessions.get(&third).is_some());
        assert_eq!(sessions.usage(), (2, 20));
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let sessions = sessions(100, 100, LONG);
        let first = sessions.insert(session(60)).unwrap();
        let second = sessions.insert(session(60)).unwrap();
        assert!(sessions.get(&first).is_none());
        assert!(sessions.remove(&second) && !sessions.remove(&second));
        assert_eq!(sessions.usage(), (0, 0));
        let huge = sessions.insert(session(101)).unwrap();
        assert!(sessions.get(&huge).is_none());
        assert_eq!(sessions.usage(), (0, 0));
    }

    #[test]
    fn the_unused_are_forgotten() {
        let sessions = sessions(100, 100, Duration::ZERO);
        let id = sessions.insert(session(60)).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert!(sessions.get(&id).is_none());
        assert_eq!(sessions.usage(), (0, 0));
    }

    #[test]
    fn ids_are_long_and_never_the_same() {
        let sessions = sessions(100, 10_000, LONG);
        let ids: std::collections::HashSet<_> = (0..50)
            .map(|_| sessions.insert(session(1)).unwrap())
            .collect();
        assert_eq!(ids.len(), 50);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
