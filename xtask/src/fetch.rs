//! A file over HTTP that goes on where it stopped, within one call and between two.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;
use ureq::http::Response;

use crate::digest::progress_bar;

/// A file that did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    /// Try again: what has arrived is kept.
    #[error("the transfer broke off; {} bytes are kept in {}", .kept, .part.display())]
    Transfer {
        kept: u64,
        part: PathBuf,
        #[source]
        source: Box<ureq::Error>,
    },
    /// Another file has taken its place, or the address leads to an error page.
    #[error("the server has a file of {found} bytes, {expected} were expected")]
    OtherFile { found: u64, expected: u64 },
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl FetchError {
    /// Bytes that another call need not fetch.
    pub(crate) fn kept(&self) -> u64 {
        if let Self::Transfer { kept, .. } = self { *kept } else { 0 }
    }
}

/// Completes `part` to the `size` bytes at `url`. The caller checks the content.
///
/// A transfer that breaks off goes on as long as each attempt brings something; a server that is busy gets three tries.
pub(crate) fn complete(agent: &Agent, url: &str, part: &Path, size: u64) -> Result<(), FetchError> {
    const FRUITLESS: u32 = 3;
    let bar = progress_bar(size, "fetching");
    let mut fruitless = 0;
    let mut most = 0;
    loop {
        let kept = kept(part, size)?;
        if kept == size {
            bar.finish_and_clear();
            return Ok(());
        }
        if kept > 0 {
            bar.suspend(|| eprintln!("  going on after {kept} of {size} bytes"));
        }
        bar.set_position(kept);
        let Err(error) = attempt(agent, url, part, kept, size, &bar) else { continue };
        let FetchError::Transfer { kept, source, .. } = &error else { return Err(error) };
        fruitless = if *kept > most { 0 } else { fruitless + 1 };
        most = most.max(*kept);
        if fruitless == FRUITLESS || is_final(source) {
            bar.abandon();
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(500) * (fruitless + 1));
    }
}

/// The length of a part; one that is longer than the file is not a part of it, and removed.
fn kept(part: &Path, size: u64) -> Result<u64, FetchError> {
    match part.metadata().map_or(0, |meta| meta.len()) {
        kept if kept <= size => Ok(kept),
        _ => write(part, fs::remove_file(part)).map(|()| 0),
    }
}

/// Whether asking again would get the same answer: no such file, no permission.
fn is_final(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::StatusCode(400..=407 | 410..=428) | ureq::Error::BadUri(_) | ureq::Error::Tls(_))
}

/// One request for what is missing.
fn attempt(
    agent: &Agent,
    url: &str,
    part: &Path,
    kept: u64,
    size: u64,
    bar: &indicatif::ProgressBar,
) -> Result<(), FetchError> {
    let broke_off = |source: ureq::Error| {
        let kept = part.metadata().map_or(0, |meta| meta.len());
        FetchError::Transfer { kept, part: part.to_owned(), source: Box::new(source) }
    };
    // Compressed on the way, the bytes would not be those that a range counts.
    let request = agent.get(url).header("Accept-Encoding", "identity");
    let request = if kept > 0 { request.header("Range", format!("bytes={kept}-")) } else { request };
    let answer = match request.call() {
        // The server's file ends before the part does.
        Err(ureq::Error::StatusCode(416)) => return write(part, fs::remove_file(part)),
        answer => answer.map_err(broke_off)?,
    };
    let (start, total) = extent(&answer);
    if let Some(found) = total.filter(|&found| found != size) {
        return Err(FetchError::OtherFile { found, expected: size });
    }
    // A server without ranges sends everything again.
    let resumes = start == kept;
    let mut file = write(part, File::options().create(true).write(true).truncate(!resumes).append(resumes).open(part))?;
    bar.set_position(if resumes { kept } else { 0 });
    // One byte more than expected shows a file that is too long.
    let mut body = answer.into_body().into_reader().take(size - if resumes { kept } else { 0 } + 1);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => write(part, file.write_all(&buffer[..read]))?,
            Err(source) => return Err(broke_off(source.into())),
        }
        bar.set_position(write(part, file.metadata())?.len());
    }
    match write(part, file.metadata())?.len() {
        found if found == size => Ok(()),
        found if found > size => Err(FetchError::OtherFile { found, expected: size }),
        _ => Err(broke_off(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
    }
}

/// Where an answer's bytes begin in the file, and how long the file is.
fn extent(answer: &Response<ureq::Body>) -> (u64, Option<u64>) {
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    let range = || {
        let (range, total) = header("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
    };
    match answer.status().as_u16() {
        206 => range().unwrap_or((0, None)),
        _ => (0, header("content-length").and_then(|length| length.parse().ok())),
    }
}

fn write<T>(path: &Path, result: io::Result<T>) -> Result<T, FetchError> {
    result.map_err(|source| FetchError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
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
        /// The rest that was asked for, of which only so many bytes arrive.
        RangeBreaksOffAfter(usize),
        /// The whole file, as content of this type.
        Page(&'static str),
        /// No file, but this status.
        Refuses(u16),
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
                    (Answer::Refuses(status), _) => {
                        let _ =
                            write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                        continue;
                    }
                    (Answer::Range | Answer::RangeBreaksOffAfter(_), Some(from)) => ("206 Partial Content", from),
                    _ => ("200 OK", 0),
                };
                let kind = if let Answer::Page(kind) = answer { kind } else { "application/octet-stream" };
                let body = &content[from..];
                let size = content.len();
                let range = if from > 0 {
                    format!("Content-Range: bytes {from}-{}/{size}\r\n", size - 1)
                } else {
                    String::new()
                };
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\n{range}Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let sent = match answer {
                    Answer::BreaksOffAfter(bytes) | Answer::RangeBreaksOffAfter(bytes) => bytes,
                    _ => body.len(),
                };
                let _ = stream.write_all(&body[..sent]);
            }
        });
        (url, receive)
    }

    pub(crate) fn agent() -> Agent {
        crate::index::Settings::default().agent().unwrap()
    }

    fn content() -> Vec<u8> {
        (0..100_000u32).map(|n| (n % 251) as u8).collect()
    }

    /// Fetches [`content`] from a server that answers like this, onto a part of `kept` bytes.
    fn fetched(kept: usize, answers: Vec<Answer>) -> (Result<(), FetchError>, Vec<u8>, Vec<Option<usize>>) {
        let (url, requests) = serve(content(), answers);
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("file.part");
        if kept > 0 {
            fs::write(&part, &content()[..kept]).unwrap();
        }
        let result = complete(&agent(), &url, &part, content().len() as u64);
        (result, fs::read(&part).unwrap_or_default(), requests.try_iter().collect())
    }

    #[test]
    fn a_transfer_that_breaks_off_twice_goes_on_where_it_stopped() {
        let answers = vec![Answer::BreaksOffAfter(40_000), Answer::RangeBreaksOffAfter(30_000), Answer::Range];
        let (result, bytes, requests) = fetched(0, answers);
        result.unwrap();
        assert!(bytes == content());
        assert_eq!(requests, [None, Some(40_000), Some(70_000)]);
    }

    #[test]
    fn what_an_earlier_call_left_is_not_fetched_again() {
        let (result, bytes, requests) = fetched(99_000, vec![Answer::Range]);
        result.unwrap();
        assert!(bytes == content());
        assert_eq!(requests, [Some(99_000)]);
    }

    #[test]
    fn a_server_that_is_gone_ends_the_call_and_what_arrived_is_kept() {
        let (result, bytes, _) = fetched(0, vec![Answer::BreaksOffAfter(40_000)]);
        assert_eq!(result.unwrap_err().kept(), 40_000);
        assert!(bytes == content()[..40_000]);
    }

    #[test]
    fn a_server_without_ranges_sends_everything_again() {
        let (result, bytes, requests) = fetched(10, vec![Answer::Whole]);
        result.unwrap();
        assert!(bytes == content());
        assert_eq!(requests, [Some(10)]);
    }

    #[test]
    fn a_part_that_is_longer_than_the_servers_file_is_thrown_away() {
        let (result, bytes, requests) = fetched(500, vec![Answer::Refuses(416), Answer::Whole]);
        result.unwrap();
        assert!(bytes == content());
        assert_eq!(requests, [Some(500), None]);
    }

    #[test]
    fn a_file_of_another_length_is_refused_before_it_is_fetched() {
        let (url, _requests) = serve(content(), vec![Answer::Whole]);
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("file.part");
        let error = complete(&agent(), &url, &part, 99_999).unwrap_err();
        assert!(matches!(error, FetchError::OtherFile { found: 100_000, expected: 99_999 }), "{error}");
        assert!(!part.exists());
    }

    #[test]
    fn a_refusal_is_not_repeated_and_a_busy_server_is_asked_again() {
        let (result, _, requests) = fetched(0, vec![Answer::Refuses(403), Answer::Whole]);
        assert!(matches!(result, Err(FetchError::Transfer { kept: 0, .. })));
        assert_eq!(requests.len(), 1);
        let (result, bytes, _) = fetched(0, vec![Answer::Refuses(503), Answer::Whole]);
        result.unwrap();
        assert!(bytes == content());
    }

    #[test]
    fn a_complete_part_asks_for_nothing() {
        let (result, bytes, requests) = fetched(100_000, vec![]);
        result.unwrap();
        assert!(bytes == content() && requests.is_empty());
    }
}
