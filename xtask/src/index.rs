//! The package index that pip is set up to use: where it keeps a file, asked without fetching the file.
//!
//! The simple repository API, as JSON (PEP 691) or HTML (PEP 503):
//! <https://packaging.python.org/en/latest/specifications/simple-repository-api/>

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy, ResponseExt as _};
use url::Url;

/// What pip asks when nothing else is set.
const DEFAULT_INDEX: &str = "https://pypi.org/simple";

/// The index cannot be asked, or does not have the file. pip may still find it: it knows keyrings, `.netrc` files,
/// client certificates and folders of wheels.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IndexError {
    #[error("pip is told to use no index")]
    NoIndex,
    #[error("the index {0} is no address")]
    Address(String),
    #[error("the index wants a password")]
    Password,
    #[error("cannot read the certificates in {}", .path.display())]
    Certificates {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no answer from {host}")]
    Http {
        host: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("{host} answers with something else than a list of files")]
    Page {
        host: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the index lists no file with the SHA-256 {0}")]
    NoFile(String),
}

/// pip's settings, as far as they say where and how to ask.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    values: HashMap<String, String>,
}

impl Settings {
    /// Reads the answer of `pip config list`: lines like `global.index-url='https://...'`. The environment counts most,
    /// then what is set for `pip download`, then what is set for all of pip; other commands' settings do not count.
    pub(crate) fn parse(answer: &str) -> Self {
        const SCOPES: [&str; 3] = ["global.", "download.", ":env:."];
        let mut values = HashMap::new();
        for scope in SCOPES {
            for (name, value) in answer.lines().filter_map(|line| line.trim().strip_prefix(scope)?.split_once('=')) {
                values.insert(name.to_owned(), unquoted(value));
            }
        }
        Self { values }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The indices in the order in which they are asked.
    fn indices(&self) -> Result<Vec<Url>, IndexError> {
        let is_on = |value: &str| !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off");
        if self.get("no-index").is_some_and(is_on) {
            return Err(IndexError::NoIndex);
        }
        let first = self.get("index-url").unwrap_or(DEFAULT_INDEX);
        let others = self.get("extra-index-url").unwrap_or_default().split_whitespace();
        std::iter::once(first).chain(others).map(index).collect()
    }

    /// A client with pip's certificates and proxy; without such settings the system's certificates, and the proxies that
    /// the environment names.
    pub(crate) fn agent(&self) -> Result<Agent, IndexError> {
        /// For a connection, for an answer, and between two pieces of a file.
        const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
        let roots = match self.get("cert") {
            Some(path) => certificates(path.into())?,
            None => RootCerts::PlatformVerifier,
        };
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("gguf-loader-xtask/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(PATIENCE)
            .timeout_recv_response(PATIENCE)
            .timeout_per_read(PATIENCE);
        let config = match self.get("proxy").map(Proxy::new) {
            Some(Ok(proxy)) => config.proxy(Some(proxy)),
            Some(Err(source)) => return Err(IndexError::Http { host: "pip's proxy".into(), source: source.into() }),
            None => config,
        };
        Ok(config.build().into())
    }

    /// The address of the project's file with this SHA-256.
    pub(crate) fn locate(&self, agent: &Agent, project: &str, sha256: &str) -> Result<Url, IndexError> {
        let mut failure = IndexError::NoFile(sha256.to_owned());
        for index in self.indices()? {
            match ask(agent, &index, project) {
                Ok(files) => {
                    if let Some(file) = files.into_iter().find(|file| file.sha256.eq_ignore_ascii_case(sha256)) {
                        return Ok(file.url);
                    }
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn index(address: &str) -> Result<Url, IndexError> {
    // A relative address resolves against the last slash.
    let url = Url::parse(&format!("{}/", address.trim_end_matches('/')));
    let url = url.map_err(|_| IndexError::Address(address.to_owned()))?;
    if url.username().is_empty() && url.password().is_none() { Ok(url) } else { Err(IndexError::Password) }
}

fn certificates(path: PathBuf) -> Result<RootCerts, IndexError> {
    let read = || -> io::Result<Vec<_>> {
        let pem = fs::read(&path)?;
        let items = parse_pem(&pem).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let certificates = items.into_iter().filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        });
        Ok(certificates.collect())
    };
    match read() {
        Ok(certificates) => Ok(RootCerts::new_with_certs(&certificates)),
        Err(source) => Err(IndexError::Certificates { path, source }),
    }
}

/// A string as Python writes it.
fn unquoted(literal: &str) -> String {
    let inner = literal.trim();
    let inner = inner.strip_prefix(['\'', '"']).and_then(|inner| inner.strip_suffix(['\'', '"'])).unwrap_or(inner);
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next() {
                Some('n' | 'r' | 't') => ' ',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    text
}

/// A file that the index lists with its hash.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    url: Url,
    sha256: String,
}

fn ask(agent: &Agent, index: &Url, project: &str) -> Result<Vec<Listed>, IndexError> {
    const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, text/html;q=0.5";
    let host = index.host_str().unwrap_or("the index").to_owned();
    let failed = |source| IndexError::Http { host: host.clone(), source: Box::new(source) };
    let page = format!("{index}{project}/");
    let mut answer = agent.get(&page).header("Accept", ACCEPT).call().map_err(failed)?;
    // Relative addresses count from where a redirection led.
    let base = Url::parse(&answer.get_uri().to_string()).map_err(|_| IndexError::Address(page))?;
    let is_json = answer.body().mime_type().is_some_and(|kind| kind.ends_with("json"));
    let text = answer.body_mut().read_to_string().map_err(failed)?;
    if is_json {
        files_of_json(&text, &base).map_err(|source| IndexError::Page { host, source })
    } else {
        Ok(files_of_html(&text, &base))
    }
}

fn files_of_json(text: &str, base: &Url) -> Result<Vec<Listed>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        url: String,
        hashes: HashMap<String, String>,
    }
    let page: Page = serde_json::from_str(text)?;
    let listed =
        |mut file: File| Some(Listed { url: base.join(&file.url).ok()?, sha256: file.hashes.remove("sha256")? });
    Ok(page.files.into_iter().filter_map(listed).collect())
}

/// The links that end in `#sha256=...`.
fn files_of_html(text: &str, base: &Url) -> Vec<Listed> {
    let quoted = |after: &str| -> Option<String> {
        let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        Some(after[1..].split(quote).next()?.replace("&amp;", "&"))
    };
    let listed = |link: String| {
        let mut url = base.join(&link).ok()?;
        let sha256 = url.fragment()?.strip_prefix("sha256=")?.to_owned();
        url.set_fragment(None);
        Some(Listed { url, sha256 })
    };
    text.split("href=").skip(1).filter_map(quoted).filter_map(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::tests::{Answer, serve};

    const SHA256: &str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";

    fn indices(answer: &str) -> Vec<String> {
        Settings::parse(answer).indices().unwrap().iter().map(Url::to_string).collect()
    }

    #[test]
    fn the_environment_counts_more_than_a_file_and_a_command_more_than_all_of_pip() {
        let global = "global.index-url='https://a.example/simple'\n";
        let command = "download.index-url='https://b.example/simple'\ninstall.index-url='https://no.example'\n";
        let environment = ":env:.index-url='https://c.example/simple/'\n";
        assert_eq!(indices(""), [format!("{DEFAULT_INDEX}/")]);
        assert_eq!(indices(global), ["https://a.example/simple/"]);
        assert_eq!(indices(&format!("{command}{global}")), ["https://b.example/simple/"]);
        assert_eq!(indices(&format!("{environment}{command}{global}")), ["https://c.example/simple/"]);
    }

    #[test]
    fn further_indices_follow_the_first() {
        let extra = r"global.extra-index-url='\nhttps://a.example\nhttps://b.example'";
        assert_eq!(indices(extra)[1..], ["https://a.example/", "https://b.example/"]);
    }

    #[test]
    fn what_only_pip_can_use_is_left_to_it() {
        let refused = |answer: &str| Settings::parse(answer).indices().unwrap_err();
        assert!(matches!(refused(":env:.no-index='1'"), IndexError::NoIndex));
        assert!(matches!(refused("global.index-url='https://me:secret@a.example'"), IndexError::Password));
        assert!(matches!(refused("global.index-url='nowhere'"), IndexError::Address(_)));
        assert_eq!(indices("global.no-index='false'").len(), 1);
    }

    #[test]
    fn a_path_that_python_has_escaped_is_read_back() {
        assert_eq!(unquoted(r"'C:\\certs\\all.pem'"), r"C:\certs\all.pem");
        assert_eq!(unquoted("\"it's\""), "it's");
    }

    #[test]
    fn certificates_that_are_not_there_are_named() {
        let error = Settings::parse("global.cert='/no/such/file.pem'").agent().unwrap_err();
        assert!(error.to_string().contains("/no/such/file.pem"), "{error}");
    }

    /// Serves a project's page once; says what was found.
    fn located(kind: &'static str, page: String) -> (String, Result<Url, IndexError>) {
        let (url, _requests) = serve(page.into_bytes(), vec![Answer::Page(kind)]);
        let index = url.replace("/file", "/simple");
        let settings = Settings::parse(&format!("global.index-url='{index}'"));
        (index, settings.locate(&settings.agent().unwrap(), "a-project", SHA256))
    }

    #[test]
    fn a_file_is_found_by_its_hash_on_a_json_page() {
        let page = format!(
            r#"{{"meta": {{"api-version": "1.1"}}, "name": "a-project", "files": [
                {{"filename": "a-1.tar.gz", "url": "https://files.example/a-1.tar.gz", "hashes": {{"sha256": "00"}}}},
                {{"filename": "a-0.whl", "url": "https://files.example/a-0.whl", "hashes": {{}}}},
                {{"filename": "a-1.whl", "url": "https://files.example/a-1.whl", "hashes": {{"sha256": "{SHA256}"}}}}]}}"#
        );
        let (_, found) = located("application/vnd.pypi.simple.v1+json", page);
        assert_eq!(found.unwrap().as_str(), "https://files.example/a-1.whl");
    }

    #[test]
    fn a_file_is_found_by_its_hash_on_an_html_page_and_its_address_is_resolved() {
        let page = format!(
            "<!DOCTYPE html><html><body><a href=\"a-0.whl\">a-0.whl</a><br/>
             <a href='../../files/a-1.whl?x=1&amp;y=2#sha256={SHA256}' data-requires-python=\"&gt;=3\">a-1.whl</a></body>"
        );
        let (index, found) = located("text/html; charset=utf-8", page);
        assert_eq!(found.unwrap().as_str(), index.replace("/simple", "/files/a-1.whl?x=1&y=2"));
    }

    #[test]
    fn an_index_without_the_file_or_without_an_answer_is_an_error() {
        let (_, found) = located("text/html", "<html><body>nothing</body></html>".into());
        assert!(matches!(found, Err(IndexError::NoFile(_))), "{found:?}");
        let (_, found) = located("application/json", "<html>".into());
        assert!(matches!(found, Err(IndexError::Page { .. })), "{found:?}");
        let settings = Settings::parse("global.index-url='http://127.0.0.1:1/simple'");
        let found = settings.locate(&settings.agent().unwrap(), "a-project", SHA256);
        assert!(matches!(found, Err(IndexError::Http { .. })), "{found:?}");
    }
}
