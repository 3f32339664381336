//! A file over HTTP that goes on where it stopped. The transfer is curl's: it knows the machine's proxies and
//! certificates.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{ProcessError, command_status, show};

/// A file that did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    /// Install curl, or fetch without `--resume` and `--url`.
    #[error("cannot run curl")]
    Curl(#[source] ProcessError),
    /// Try again: what has arrived is kept.
    #[error("curl ended with {status}; {} bytes are kept in {}", .kept, .part.display())]
    Transfer { status: std::process::ExitStatus, kept: u64, part: PathBuf },
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What to ask the server for, given what an earlier attempt left.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Everything,
    From(u64),
    Nothing,
}

impl Plan {
    /// A part that is longer than the file is not a part of it.
    fn new(kept: u64, size: u64) -> Self {
        match kept {
            0 => Self::Everything,
            kept if kept < size => Self::From(kept),
            kept if kept == size => Self::Nothing,
            _ => Self::Everything,
        }
    }
}

/// Completes `part` to the `size` bytes at `url`. The caller checks the content.
pub(crate) fn complete(url: &str, part: &Path, size: u64) -> Result<(), FetchError> {
    let kept = part.metadata().map_or(0, |meta| meta.len());
    match Plan::new(kept, size) {
        Plan::Nothing => Ok(()),
        Plan::Everything => everything(url, part),
        Plan::From(offset) => {
            eprintln!("  going on after {offset} of {size} bytes");
            match transfer(url, part, Some(offset)) {
                // The server cannot send ranges, or has a shorter file now.
                Err(FetchError::Transfer { status, .. }) if NO_RANGE.contains(&status.code()) => everything(url, part),
                result => result,
            }
        }
    }
}

/// curl's codes for a range that the server did not honour: 33 and 36, and 22 for HTTP 416.
const NO_RANGE: [Option<i32>; 3] = [Some(33), Some(36), Some(22)];

fn everything(url: &str, part: &Path) -> Result<(), FetchError> {
    match fs::remove_file(part) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(FetchError::Write { path: part.to_owned(), source });
        }
        _ => {}
    }
    transfer(url, part, None)
}

fn transfer(url: &str, part: &Path, offset: Option<u64>) -> Result<(), FetchError> {
    let mut command = Command::new("curl");
    command.args(["--fail", "--location", "--show-error", "--progress-bar", "--connect-timeout", "30"]);
    // A stalled connection ends; what has arrived is kept for the next attempt.
    command.args(["--speed-limit", "1000", "--speed-time", "60"]);
    if let Some(offset) = offset {
        command.arg("--continue-at").arg(offset.to_string());
    }
    command.arg("--output").arg(part).arg(url);
    show(&command);
    let status = command_status(&mut command).map_err(FetchError::Curl)?;
    if status.success() {
        return Ok(());
    }
    let kept = part.metadata().map_or(0, |meta| meta.len());
    Err(FetchError::Transfer { status, kept, part: part.to_owned() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    /// How the server answers one request.
    #[derive(Clone, Copy)]
    pub(crate) enum Answer {
        /// The rest that was asked for.
        Range,
        /// The whole file, whatever was asked for.
        Whole,
        /// The header promises everything, the connection closes after so many bytes.
        BreaksOffAfter(usize),
    }

    /// Serves `content` with one answer a request; the receiver gets each request's `Range` offset.
    pub(crate) fn serve(content: Vec<u8>, answers: Vec<Answer>) -> (String, mpsc::Receiver<Option<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut offset = None;
                for line in BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                    let range = line.to_ascii_lowercase();
                    if let Some(from) = range.strip_prefix("range: bytes=") {
                        offset = from.trim_end_matches('-').parse().ok();
                    }
                }
                let _ = send.send(offset);
                let (status, from) = match (answer, offset) {
                    (Answer::Range, Some(from)) => ("206 Partial Content", from),
                    _ => ("200 OK", 0),
                };
                let body = &content[from..];
                let size = content.len();
                let range = if from > 0 {
                    format!("Content-Range: bytes {from}-{}/{size}\r\n", size - 1)
                } else {
                    String::new()
                };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\n{range}Content-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let sent = if let Answer::BreaksOffAfter(bytes) = answer { bytes } else { body.len() };
                let _ = stream.write_all(&body[..sent]);
            }
        });
        (url, receive)
    }

    /// curl is part of every system that we know; where it is not, the test says so.
    pub(crate) fn curl_is_here() -> bool {
        let here = crate::process::find_program("curl").is_some();
        if !here {
            eprintln!("skipped: curl is not installed");
        }
        here
    }

    fn content() -> Vec<u8> {
        (0..100_000u32).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn the_plan_follows_what_an_earlier_attempt_left() {
        assert_eq!(Plan::new(0, 10), Plan::Everything);
        assert_eq!(Plan::new(4, 10), Plan::From(4));
        assert_eq!(Plan::new(10, 10), Plan::Nothing);
        assert_eq!(Plan::new(11, 10), Plan::Everything);
    }

    #[test]
    fn a_broken_transfer_goes_on_where_it_stopped() {
        if !curl_is_here() {
            return;
        }
        let content = content();
        let (url, requests) = serve(content.clone(), vec![Answer::BreaksOffAfter(40_000), Answer::Range]);
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("file.part");
        let size = content.len() as u64;
        let error = complete(&url, &part, size).unwrap_err();
        assert!(matches!(error, FetchError::Transfer { kept: 40_000, .. }), "{error}");
        complete(&url, &part, size).unwrap();
        assert_eq!(fs::read(&part).unwrap(), content);
        assert_eq!(requests.iter().collect::<Vec<_>>(), [None, Some(40_000)]);
    }

    #[test]
    fn a_server_without_ranges_sends_everything_again() {
        if !curl_is_here() {
            return;
        }
        let content = content();
        let (url, _requests) = serve(content.clone(), vec![Answer::Whole, Answer::Whole]);
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("file.part");
        fs::write(&part, &content[..10]).unwrap();
        complete(&url, &part, content.len() as u64).unwrap();
        assert_eq!(fs::read(&part).unwrap(), content);
    }

    #[test]
    fn a_complete_part_asks_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("file.part");
        fs::write(&part, "abc").unwrap();
        complete("http://127.0.0.1:1/nobody-listens", &part, 3).unwrap();
    }
}
