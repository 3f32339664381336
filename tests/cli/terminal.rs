//! `chat` at a terminal: editing, history, Ctrl-C.
#![cfg(unix)]

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use nix::pty::{Winsize, openpty};

use crate::{
    models::{Folder, can_tokenize},
    program,
};

const UP: &str = "\x1b[A";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const PATIENCE: Duration = Duration::from_secs(60);

/// A program at a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown since a key was last pressed.
    shown: String,
}

impl Terminal {
    /// `chat`, with this value of `GGUF_LOADER_HISTORY`.
    fn chat(model: &Path, history: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let mut command = Command::new(program().get_program());
        for knob in gguf_loader::knobs::ALL {
            command.env_remove(knob.name);
        }
        command.arg("chat").arg(model).args(arguments).env("TERM", "xterm").env("GGUF_LOADER_HISTORY", history);
        command.stdin(pty.slave.try_clone().unwrap()).stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave);
        let child = command.spawn().unwrap();
        // Its copies of the terminal would keep that open when the program has ended.
        drop(command);
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut terminal = Self { child, keyboard, screen, shown: String::new() };
        terminal.expect("> ");
        terminal
    }

    fn press(&mut self, keys: &str) {
        self.shown.clear();
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is on the screen.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown.contains(text) {
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.shown += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("{text:?} does not appear: {:?}", self.shown),
            }
        }
    }

    /// Says something, and waits for the prompt after the answer.
    #[track_caller]
    fn say(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
        self.expect("\n");
        let entered = self.shown.find('\n').map_or(0, |end| end + 1);
        self.shown.drain(..entered);
        self.expect("> ");
    }

    fn wait(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                self.child.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child.wait().unwrap()
    }
}

/// A model, and the options that make it answer with `#`s.
fn talker(folder: &Folder, most: &str) -> Option<(PathBuf, Vec<String>)> {
    let model = folder.model();
    let template = folder.file("own.jinja", "{% for m in messages %} {{ m.content }}{% endfor %}");
    let options = ["--template", template.to_str().unwrap(), "-n", most, "--grammar", "root ::= \"#\"+"];
    let options = options.into_iter().chain(["--logit-bias", "2=-inf", "--threads", "1"]).map(str::to_owned).collect();
    can_tokenize(&model).then_some((model, options))
}

fn strs(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

/// What the user said, by a file that /save wrote.
fn said(file: &Path) -> Vec<String> {
    let saved: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let messages = saved["messages"].as_array().unwrap().iter().filter(|message| message["role"] == "user");
    messages.map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_typed_comes_back_the_next_time_and_is_the_user_s_alone() {
    let folder = Folder::new();
    let Some((model, options)) = talker(&folder, "1") else { return };
    // A folder that is not there yet.
    let history = folder.path().join("state").join("history");
    let mut first = Terminal::chat(&model, &history, &strs(&options));
    first.say("the quick brown fox");
    first.say(" a secret");
    first.press("one\\\r");
    first.expect(". ");
    first.say("two");
    first.press("/quit\r");
    assert!(first.wait().success());
    let kept = fs::read_to_string(&history).unwrap();
    assert!(kept.contains("the quick brown fox") && !kept.contains("secret"), "{kept}");
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);

    let mut second = Terminal::chat(&model, &history, &strs(&options));
    let file = folder.path().join("talk.json");
    // Past /quit, and the two lines of a message.
    second.press(&UP.repeat(4));
    second.expect("the quick brown fox");
    second.say("");
    second.press(&UP.repeat(3));
    second.expect("two");
    second.say("");
    second.say(&format!("/save {}", file.display()));
    second.press(CTRL_D);
    assert!(second.wait().success());
    assert_eq!(said(&file), ["the quick brown fox", "one\ntwo"]);
}

#[test]
fn nothing_is_kept_where_that_is_not_wanted() {
    let folder = Folder::new();
    let Some((model, options)) = talker(&folder, "1") else { return };
    let history = folder.path().join("history");
    let none = [strs(&options), vec!["--no-history"]].concat();
    for (value, arguments) in [(history.as_os_str(), none), (OsStr::new("0"), strs(&options))] {
        let before = fs::read_dir(folder.path()).unwrap().count();
        let mut terminal = Terminal::chat(&model, value, &arguments);
        terminal.say("the quick brown fox");
        terminal.press(CTRL_D);
        assert!(terminal.wait().success());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
        assert!(!Path::new("0").exists());
    }
}

#[test]
fn a_history_that_cannot_be_written_is_told_of_once() {
    let folder = Folder::new();
    let Some((model, options)) = talker(&folder, "1") else { return };
    let mut terminal = Terminal::chat(&model, model.join("history"), &strs(&options));
    terminal.press("the fox\r");
    terminal.expect("(no history is kept: cannot write ");
    terminal.expect("> ");
    terminal.say("another fox");
    assert!(!terminal.shown.contains("history"), "{:?}", terminal.shown);
    terminal.press(CTRL_D);
    assert!(terminal.wait().success());
}

#[test]
fn ctrl_c_at_the_prompt_gives_the_line_up() {
    let folder = Folder::new();
    let Some((model, options)) = talker(&folder, "1") else { return };
    let mut terminal = Terminal::chat(&model, "0", &strs(&options));
    terminal.press("half a message");
    terminal.expect("half a message");
    terminal.press(CTRL_C);
    terminal.expect("Ctrl-D or /quit ends the conversation");
    terminal.expect("> ");
    let file = folder.path().join("talk.json");
    terminal.say("a whole one");
    terminal.say(&format!("/save {}", file.display()));
    terminal.press(CTRL_D);
    assert!(terminal.wait().success());
    assert_eq!(said(&file), ["a whole one"]);
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_conversation() {
    let folder = Folder::new();
    let Some((model, options)) = talker(&folder, "1900") else { return };
    let mut terminal = Terminal::chat(&model, "0", &strs(&options));
    for _ in 0..2 {
        terminal.press("the fox\r");
        terminal.expect("####");
        crate::interrupts::interrupt(&terminal.child);
        terminal.expect("(stopped; /retry asks again");
        terminal.expect("> ");
        // An error is no reason to end either.
        terminal.say("/nonsense");
        assert!(terminal.shown.contains("error: there is no command /nonsense"), "{:?}", terminal.shown);
        terminal.say("/undo");
    }
    terminal.press(CTRL_D);
    assert!(terminal.wait().success());
}
