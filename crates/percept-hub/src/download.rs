//! One file from an address to a temporary name, resumed and verified.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::cache::{io_error, make_parent, remove, sha256_of_file, write_whole};
use crate::error::HubError;
use crate::http::{Answer, Failure, Follow, Http, MAX_RETRIES, Method, Request};
use crate::progress::Progress;

/// No file of a model that percept can run comes near.
pub(crate) const MAX_FILE: u64 = 32 << 30;

/// Attempts in all, even if each gains a little: a server that sends a byte at a time must end.
const MAX_ATTEMPTS: u32 = 100;

const BUFFER: usize = 1 << 18;

/// A file to download.
pub(crate) struct Download<'a> {
    pub(crate) url: &'a str,
    /// Its name, for messages.
    pub(crate) file: &'a str,
    /// Where to collect its bytes. Left there when the connection breaks off, removed when they turn
    /// out to be wrong.
    pub(crate) incomplete: &'a Path,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<&'a str>,
    pub(crate) resume: Resume,
}

/// How to know that bytes collected earlier belong to the same file.
pub(crate) enum Resume {
    /// The temporary name contains the digest that is checked in the end.
    ByName,
    /// The server's tag was written to this file when the download began.
    ByTag(PathBuf),
    /// It cannot be known: begin again.
    Never,
}

impl Download<'_> {
    /// Downloads to `incomplete` and checks size and digest.
    pub(crate) fn run(&self, http: &Http, progress: &dyn Progress) -> Result<(), HubError> {
        make_parent(self.incomplete)?;
        let mut fruitless = 0;
        for _ in 0..MAX_ATTEMPTS {
            let before = self.received()?;
            let failure = match self.attempt(before, http, progress) {
                Ok(()) => return self.verify(progress),
                Err(failure) => failure,
            };
            if !failure.transient {
                return Err(failure.error);
            }
            if self.received()? > before {
                fruitless = 0;
            } else {
                fruitless += 1;
            }
            if fruitless > MAX_RETRIES {
                return Err(failure.error);
            }
            http.pause(fruitless, failure.wait);
        }
        Err(self.broken_off(self.received()?))
    }

    /// Bytes from an earlier attempt that can be gone on from.
    fn received(&self) -> Result<u64, HubError> {
        let len = match fs::metadata(self.incomplete) {
            Ok(metadata) => metadata.len(),
            Err(_) => return Ok(0),
        };
        let usable = match &self.resume {
            Resume::ByName => true,
            Resume::ByTag(path) => path.is_file(),
            Resume::Never => false,
        };
        if usable && self.size.is_none_or(|size| len <= size) {
            return Ok(len);
        }
        self.start_over()?;
        Ok(0)
    }

    fn start_over(&self) -> Result<(), HubError> {
        remove(self.incomplete)?;
        match &self.resume {
            Resume::ByTag(path) => remove(path),
            Resume::ByName | Resume::Never => Ok(()),
        }
    }

    /// One request, from byte `start` on. Returns when all bytes are there.
    fn attempt(&self, start: u64, http: &Http, progress: &dyn Progress) -> Result<(), Failure> {
        if start > 0 && self.size == Some(start) {
            progress.start(self.file, self.size);
            progress.advance(start);
            return Ok(());
        }
        let saved_tag = match &self.resume {
            Resume::ByTag(path) if start > 0 => fs::read_to_string(path).ok(),
            _ => None,
        };
        let answer = http.send(&Request {
            method: Method::Get,
            url: self.url,
            file: self.file,
            range: (start > 0).then_some((start, saved_tag.as_deref())),
            follow: Follow::Everywhere,
        });
        let answer = match answer {
            Err(failure) if matches!(failure.error, HubError::Status { status: 416, .. }) => {
                // The file is shorter than what we have, so ours is not a part of it.
                self.start_over()?;
                return Err(Failure::transient(failure.error));
            }
            other => other?,
        };
        let (start, total) = self.position(start, saved_tag.as_deref(), &answer)?;
        self.check_total(total)?;
        self.receive(start, total, answer, progress)
    }

    /// Where the answer's bytes begin, and how many the file has.
    fn position(
        &self,
        start: u64,
        saved_tag: Option<&str>,
        answer: &Answer,
    ) -> Result<(u64, Option<u64>), Failure> {
        let length = answer.body.content_length();
        if answer.status != 206 {
            // A server that does not do ranges, or a file that has changed: from the beginning.
            return Ok((0, length));
        }
        let range = answer.header("content-range").and_then(parse_range);
        let changed = saved_tag.is_some_and(|tag| answer.header("etag").is_some_and(|t| t != tag));
        match range {
            Some((from, total)) if from == start && start > 0 && !changed => {
                Ok((start, total.or(length.map(|n| start.saturating_add(n)))))
            }
            _ => {
                self.start_over()?;
                Err(Failure::transient(HubError::BadAnswer {
                    url: self.url.to_owned(),
                    reason: "another part of the file than was asked for".to_owned(),
                }))
            }
        }
    }

    fn check_total(&self, total: Option<u64>) -> Result<(), HubError> {
        match (self.size, total) {
            (Some(expected), Some(found)) if expected != found => {
                self.start_over()?;
                Err(HubError::WrongSize {
                    file: self.file.to_owned(),
                    expected,
                    found,
                })
            }
            (_, Some(found)) if found > MAX_FILE => Err(self.too_large()),
            _ => Ok(()),
        }
    }

    fn receive(
        &self,
        start: u64,
        total: Option<u64>,
        answer: Answer,
        progress: &dyn Progress,
    ) -> Result<(), Failure> {
        let path = self.incomplete;
        let mut file = if start > 0 {
            File::options().append(true).open(path)
        } else {
            self.begin(&answer)?;
            File::create(path)
        }
        .map_err(io_error(path))?;

        let expected = self.size.or(total);
        progress.start(self.file, expected);
        if start > 0 {
            progress.advance(start);
        }
        let limit = expected.unwrap_or(MAX_FILE);
        let mut received = start;
        let mut buffer = vec![0; BUFFER];
        let mut reader = answer.body.into_with_config().limit(u64::MAX).reader();
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                // What has been written stays, for the next attempt.
                Err(_) => return Err(Failure::transient(self.broken_off(received))),
            };
            received += n as u64;
            if received > limit {
                drop(file);
                self.start_over()?;
                return Err(match expected {
                    Some(expected) => HubError::WrongSize {
                        file: self.file.to_owned(),
                        expected,
                        found: received,
                    },
                    None => self.too_large(),
                }
                .into());
            }
            file.write_all(&buffer[..n]).map_err(io_error(path))?;
            progress.advance(n as u64);
        }
        if expected.is_some_and(|expected| received < expected) {
            return Err(Failure::transient(self.broken_off(received)));
        }
        file.sync_all().map_err(io_error(path))?;
        Ok(())
    }

    /// Forgets what was there and remembers the tag of what comes. A weak tag does not promise the
    /// same bytes, so it is as good as none.
    fn begin(&self, answer: &Answer) -> Result<(), HubError> {
        self.start_over()?;
        if let Resume::ByTag(path) = &self.resume
            && let Some(tag) = answer.header("etag")
            && !tag.starts_with("W/")
        {
            write_whole(path, tag.as_bytes())?;
        }
        Ok(())
    }

    fn verify(&self, progress: &dyn Progress) -> Result<(), HubError> {
        if let Some(expected) = self.size {
            let found = (fs::metadata(self.incomplete))
                .map_err(io_error(self.incomplete))?
                .len();
            if found != expected {
                self.start_over()?;
                return Err(HubError::WrongSize {
                    file: self.file.to_owned(),
                    expected,
                    found,
                });
            }
        }
        if let Some(expected) = self.sha256 {
            let found = sha256_of_file(self.incomplete)?;
            if !found.eq_ignore_ascii_case(expected) {
                self.start_over()?;
                return Err(HubError::WrongDigest {
                    file: self.file.to_owned(),
                    expected: expected.to_ascii_lowercase(),
                    found,
                });
            }
        }
        progress.finish();
        Ok(())
    }

    fn broken_off(&self, received: u64) -> HubError {
        HubError::BrokenOff {
            file: self.file.to_owned(),
            url: self.url.to_owned(),
            received,
        }
    }

    fn too_large(&self) -> HubError {
        HubError::TooLarge {
            file: self.file.to_owned(),
            limit: MAX_FILE,
        }
    }
}

/// `bytes FROM-TO/TOTAL`, of which the total may be `*`.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, _) = range.split_once('-')?;
    Some((from.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn ranges_are_parsed() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(parse_range("bytes */10"), None);
        assert_eq!(parse_range("5-9"), None);
    }
}
