//! What went wrong: the text for people, the exit code for programs.

use std::{error::Error, path::Path, process::ExitCode};

use gguf_loader::{
    adapter::AdapterError,
    backend::{self, ContextError, DecodeError, Ineligible, VocabularyError},
    chat::{ChatError, TemplateError},
    convert::ConvertError,
    embedding::EmbedError,
    generation::GenerateError,
    gguf::{GgufError, TensorProblem},
    grammar::ConstraintError,
    import::{CacheError, ImportError},
    knobs::KnobError,
    merge::MergeError,
    model,
    perplexity::PerplexityError,
    sampling::SampleError,
    select::{Candidate, ChooseError, Policy, RegistryError, SelectError},
    tokenizer::TokenizerError,
};

use crate::output::to_stderr;

/// How the program ends. `--help` lists the codes; they do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A failure that no other code describes.
    Unexpected = 1,
    /// An argument or an environment variable that makes no sense. The code is clap's.
    Usage = 2,
    /// A file that is missing, unreadable, no GGUF, truncated or damaged.
    File = 3,
    /// A model that no backend runs: its architecture, its tensor types, or that it has no weights or no tokenizer.
    Model = 4,
    /// A backend that is not known, not compiled in, not usable on this machine, or denied.
    Backend = 5,
    /// Not enough memory.
    Memory = 6,
    /// Input that cannot be used: not UTF-8, empty, too long, too short, no tokens of the model.
    Input = 7,
    /// `bench --assert` found that the automatic choice is not the fastest.
    Assertion = 8,
    /// Ctrl-C.
    Interrupted = 130,
}

/// A failure, ready to be reported.
#[derive(Debug)]
pub(crate) struct Failure(Kind);

#[derive(Debug)]
enum Kind {
    Error { exit: Exit, chain: Vec<String>, help: Option<&'static str> },
    ClosedPipe,
}

impl Failure {
    /// The failure that `error` and its causes describe.
    pub(crate) fn new(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |&error| error.source());
        Self(Kind::Error { exit, chain: causes.map(|cause| cause.to_string()).collect(), help: None })
    }

    /// A failure that is described by its text alone.
    pub(crate) fn message(exit: Exit, message: impl Into<String>) -> Self {
        Self(Kind::Error { exit, chain: vec![message.into()], help: None })
    }

    /// A file that cannot be read.
    pub(crate) fn unreadable(path: &Path, error: &(dyn Error + 'static)) -> Self {
        Self::new(Exit::File, error).with_headline(format!("cannot read {}", path.display()))
    }

    /// Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        Self::message(Exit::Interrupted, "interrupted")
    }

    /// The reader of stdout has gone: nothing to report.
    pub(crate) fn closed_pipe() -> Self {
        Self(Kind::ClosedPipe)
    }

    /// Whether the reader of stdout has gone.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self.0, Kind::ClosedPipe)
    }

    /// Puts `message` before what is known: it becomes the error, and that its cause.
    pub(crate) fn with_headline(mut self, message: impl Into<String>) -> Self {
        if let Kind::Error { chain, .. } = &mut self.0 {
            chain.insert(0, message.into());
        }
        self
    }

    /// Says what to do about it.
    pub(crate) fn with_help(mut self, advice: impl Into<Option<&'static str>>) -> Self {
        if let Kind::Error { help, .. } = &mut self.0 {
            *help = advice.into();
        }
        self
    }

    /// Writes the failure to stderr, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let Kind::Error { exit, chain, help } = self.0 else { return ExitCode::SUCCESS };
        for (index, message) in chain.iter().enumerate() {
            let label = if index == 0 { "error" } else { "caused by" };
            to_stderr(format_args!("{label}: {message}"));
        }
        if let Some(help) = help {
            to_stderr(format_args!("help: {help}"));
        }
        ExitCode::from(exit as u8)
    }
}

const DEVICES: &str = "`gguf-loader devices` lists the backends and what each of them lacks here";
const SMALLER: &str = "take a smaller model, or one with fewer bits per weight";
const OTHER_ARCHITECTURE: &str = "take a model of another architecture, or a newer gguf-loader; `gguf-loader inspect MODEL` says what the file holds";
const OTHER_TYPES: &str =
    "take the model in another quantisation; `gguf-loader inspect MODEL` lists the types that the file has";
const SHORTER: &str = "ask for a shorter context with --ctx N, or take a smaller model";

impl From<GgufError> for Failure {
    fn from(error: GgufError) -> Self {
        let (exit, help) = match &error {
            GgufError::Tensor { problem: TensorProblem::UnknownType { .. } | TensorProblem::Type { .. }, .. } => {
                (Exit::Model, None)
            }
            GgufError::NotFound { .. } => (Exit::File, Some("check the path; quote it when it has blanks")),
            GgufError::PermissionDenied { .. } => {
                (Exit::File, Some("make the file readable (chmod +r), or run as a user who may read it"))
            }
            GgufError::NotGguf { .. } => {
                (Exit::File, Some("give a file that ends in .gguf; llama.cpp's convert_hf_to_gguf.py makes them"))
            }
            GgufError::Version { version: ..=1, .. } => {
                (Exit::File, Some("convert the original model again with a current llama.cpp"))
            }
            GgufError::Version { .. } => (Exit::File, Some("take a newer gguf-loader, or the model in version 3")),
            GgufError::Key { .. } | GgufError::Tensor { .. } => {
                (Exit::File, Some("fetch the file again, or convert the original model again"))
            }
            _ => (Exit::File, None),
        };
        Self::new(exit, &error).with_help(help)
    }
}

impl From<model::LoadError> for Failure {
    fn from(error: model::LoadError) -> Self {
        match error {
            model::LoadError::Gguf(error) => error.into(),
            model::LoadError::Import(error @ ImportError::Full { .. }) => {
                // Where it is written is not said on the command line.
                Self::from(error).with_help("make room, or set GGUF_LOADER_CACHE to a folder on another disk")
            }
            model::LoadError::Import(error) => error.into(),
            model::LoadError::Knob(error) => error.into(),
            model::LoadError::Choose(error) => error.into(),
            model::LoadError::Backend(error) => Self::of_load(&error),
            other => Self::new(Exit::Unexpected, &other),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        const BY_HAND: &str = "`gguf-loader import MODEL OUT` imports by hand; `gguf-loader knobs` lists the settings";
        let (exit, help) = match error {
            // Nothing but Ctrl-C cancels in this program.
            ImportError::Cancelled => return Self::interrupted(),
            ImportError::Gguf(error) => return error.into(),
            ImportError::SameFile { .. } => (Exit::Usage, Some("give the output another name")),
            ImportError::Layout { .. } => (Exit::Usage, Some("name another layout with --layout")),
            ImportError::Cache(CacheError::NoFolder | CacheError::Budget { .. }) => (Exit::Usage, Some(BY_HAND)),
            ImportError::Cache(_) => (Exit::File, Some(BY_HAND)),
            ImportError::Full { .. } => (Exit::File, Some("make room, or write to another disk")),
            ImportError::Code { .. } | ImportError::Scale { .. } => (Exit::File, Some("fetch the file again")),
            ImportError::Read { .. } | ImportError::Write(_) | ImportError::Changed { .. } => (Exit::File, None),
            ImportError::OutputMatrix { .. } => (Exit::Model, Some("keep the output matrix: --output-matrix keep")),
            ImportError::NotNeeded { .. } => (Exit::Model, Some("load the file as it is")),
            ImportError::Mixed { .. } => {
                (Exit::Model, Some("`gguf-loader import` makes one form of it, and that can be exported"))
            }
            _ => (Exit::Model, None),
        };
        Self::new(exit, &error).with_help(help)
    }
}

impl Failure {
    fn of_load(error: &backend::LoadError) -> Self {
        let (exit, help) = match error {
            // Nothing but Ctrl-C cancels in this program.
            backend::LoadError::Cancelled => return Self::interrupted(),
            backend::LoadError::Io { .. } => (Exit::File, None),
            backend::LoadError::Refused { .. } => {
                (Exit::Model, Some("`gguf-loader inspect MODEL` says what the file holds"))
            }
            backend::LoadError::Memory { .. } => (Exit::Memory, Some(SMALLER)),
            _ => (Exit::Unexpected, None),
        };
        Self::new(exit, error).with_help(help)
    }
}

impl From<KnobError> for Failure {
    fn from(error: KnobError) -> Self {
        Self::new(Exit::Usage, &error).with_help("`gguf-loader knobs` lists the environment variables")
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::new(Exit::Unexpected, &error)
    }
}

impl From<ChooseError> for Failure {
    fn from(error: ChooseError) -> Self {
        match error {
            ChooseError::Registry(error) => error.into(),
            ChooseError::Select(error) => error.into(),
            other => Self::new(Exit::Unexpected, &other),
        }
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let (exit, help) = match &error {
            SelectError::CannotRun { policy, candidates } => blame(policy, candidates),
            _ => (Exit::Backend, DEVICES),
        };
        Self::new(exit, &error).with_help(help)
    }
}

/// What to blame when nothing that is permitted can run the model, and what to do about it: the backends, unless one could run
/// here but for the model or the memory.
fn blame(policy: &Policy, candidates: &[Candidate]) -> (Exit, &'static str) {
    let permitted = candidates.iter().filter(|candidate| policy.permits(candidate.id));
    let mut blamed = (Exit::Backend, DEVICES);
    for reason in permitted.filter_map(Candidate::ineligible) {
        match reason {
            Ineligible::Memory { .. } => return (Exit::Memory, SMALLER),
            Ineligible::Architecture(_) => blamed = (Exit::Model, OTHER_ARCHITECTURE),
            Ineligible::TensorType(_) => blamed = (Exit::Model, OTHER_TYPES),
            _ => {}
        }
    }
    blamed
}

impl From<TokenizerError> for Failure {
    fn from(error: TokenizerError) -> Self {
        match error {
            TokenizerError::Gguf(error) => error.into(),
            TokenizerError::Import(error) => error.into(),
            TokenizerError::Knob(error) => error.into(),
            other => Self::from(&other),
        }
    }
}

/// A loaded model keeps the error that its tokenizer met.
impl From<&TokenizerError> for Failure {
    fn from(error: &TokenizerError) -> Self {
        match error {
            TokenizerError::Vocabulary(error) => Self::of_vocabulary(error),
            TokenizerError::Backend(error) => Self::of_load(error),
            // The file was read before: what is wrong with it now happened meanwhile.
            TokenizerError::Gguf(error) => Self::new(Exit::File, error),
            other => Self::new(Exit::Unexpected, other),
        }
    }
}

impl From<VocabularyError> for Failure {
    fn from(error: VocabularyError) -> Self {
        Self::of_vocabulary(&error)
    }
}

impl Failure {
    fn of_vocabulary(error: &VocabularyError) -> Self {
        let exit = match error {
            VocabularyError::Unsupported => Exit::Backend,
            VocabularyError::NoTokenizer => Exit::Model,
            VocabularyError::Token { .. } | VocabularyError::TooLong(_) => Exit::Input,
            _ => Exit::Unexpected,
        };
        Self::new(exit, error)
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        let (exit, help) = match &error {
            ContextError::VocabularyOnly => (Exit::Model, None),
            ContextError::NoEmbeddings | ContextError::Option(_) => (Exit::Backend, Some(DEVICES)),
            ContextError::NoRanking => (Exit::Model, Some("take a model that was made to rank, or compare embeddings")),
            ContextError::Length { .. } => (Exit::Usage, Some("ask for a shorter context with --ctx N")),
            ContextError::Threads { .. } => {
                (Exit::Usage, Some("leave --threads out for the number that suits the machine"))
            }
            ContextError::Sequences { .. } => (Exit::Usage, None),
            ContextError::Memory { .. } => (Exit::Memory, Some(SHORTER)),
            _ => (Exit::Unexpected, None),
        };
        Self::new(exit, &error).with_help(help)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Cancelled => Self::interrupted(),
            DecodeError::ContextFull { .. } => {
                Self::new(Exit::Input, &error).with_help("ask for a longer context with --ctx N")
            }
            other => Self::new(Exit::Unexpected, &other),
        }
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        let (exit, help) = match error {
            GenerateError::Decode(error) => return error.into(),
            GenerateError::Vocabulary(error) => return error.into(),
            GenerateError::EmptyPrompt => (Exit::Input, Some("give --prompt a text")),
            GenerateError::PromptTooLong { .. } => {
                (Exit::Input, Some("shorten the prompt, or ask for a longer context with --ctx N"))
            }
            GenerateError::EmptyStop | GenerateError::NothingToShift { .. } | GenerateError::CannotShift => {
                (Exit::Usage, None)
            }
            GenerateError::Sampling(_) => (Exit::Usage, Some("`gguf-loader run --help` lists the ranges")),
            GenerateError::NoTokenizer
            | GenerateError::NoLogits
            | GenerateError::NoMemory
            | GenerateError::Sample(SampleError::NotANumber)
            // A grammar asks the same sampler.
            | GenerateError::Constraint(ConstraintError::Sample(SampleError::NotANumber)) => (Exit::Model, None),
            _ => (Exit::Unexpected, None),
        };
        Self::new(exit, &error).with_help(help)
    }
}

impl From<AdapterError> for Failure {
    fn from(error: AdapterError) -> Self {
        let exit = match error {
            AdapterError::Gguf(error) => return error.into(),
            AdapterError::Scale(_) => Exit::Usage,
            AdapterError::NotAnAdapter { .. } => Exit::File,
            AdapterError::Engine(_) => Exit::Backend,
            AdapterError::Architecture { .. } | AdapterError::Tensor { .. } | AdapterError::Blocks { .. } => {
                Exit::Model
            }
            _ => Exit::Unexpected,
        };
        Self::new(exit, &error)
    }
}

impl From<MergeError> for Failure {
    fn from(error: MergeError) -> Self {
        let exit = match error {
            // Nothing but Ctrl-C cancels in this program.
            MergeError::Cancelled => return Self::interrupted(),
            MergeError::Gguf(error) => return error.into(),
            MergeError::Adapter(error) => return error.into(),
            MergeError::Ratio(_) | MergeError::SameFile { .. } => Exit::Usage,
            MergeError::Type { .. } | MergeError::Different(_) => Exit::Model,
            _ => Exit::File,
        };
        let is_type = matches!(error, MergeError::Type { .. });
        Self::new(exit, &error).with_help(is_type.then_some("merge models in F16 or Q8_0, and quantise the result"))
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        let help = matches!(error, TemplateError::Missing).then_some("give one with --template FILE");
        Self::new(Exit::Model, &error).with_help(help)
    }
}

impl From<ChatError> for Failure {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::Generate(error) => error.into(),
            ChatError::Template(error) => error.into(),
            ChatError::NothingToReplyTo => Self::new(Exit::Input, &error),
            other => Self::new(Exit::Unexpected, &other),
        }
    }
}

impl From<EmbedError> for Failure {
    fn from(error: EmbedError) -> Self {
        let (exit, help) = match error {
            EmbedError::Context(error) => return error.into(),
            EmbedError::Decode(error) => return error.into(),
            EmbedError::Vocabulary(error) => return error.into(),
            EmbedError::NoPooling => {
                (Exit::Model, Some("name one: --pooling mean, or last for a model that generates"))
            }
            EmbedError::IsRanking => (Exit::Model, Some("`gguf-loader rerank` is for this model")),
            EmbedError::TooLong { .. } => {
                (Exit::Input, Some("let the end be left out with --truncate, or ask for more tokens with --ctx N"))
            }
            EmbedError::Empty { .. } => (Exit::Input, None),
            EmbedError::NoTokenizer | EmbedError::NotANumber { .. } => (Exit::Model, None),
            _ => (Exit::Unexpected, None),
        };
        Self::new(exit, &error).with_help(help)
    }
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        let (exit, help) = match error {
            // Nothing but Ctrl-C cancels in this program.
            ConvertError::Cancelled => return Self::interrupted(),
            ConvertError::SameFile { .. } => (Exit::Usage, Some("give the output another name")),
            ConvertError::Missing { .. } => (Exit::File, Some("fetch all files of the repository into one folder")),
            ConvertError::Config { .. } | ConvertError::Tokenizer { .. } | ConvertError::UnknownTensor { .. } => {
                (Exit::Model, Some("llama.cpp's convert_hf_to_gguf.py converts models of other architectures"))
            }
            ConvertError::EndTokens { .. } => {
                (Exit::Model, Some("leave the token that ends a text and the one that ends a turn in the list"))
            }
            ConvertError::Row { .. } => (Exit::Model, None),
            _ => (Exit::File, None),
        };
        Self::new(exit, &error).with_help(help)
    }
}

impl From<PerplexityError> for Failure {
    fn from(error: PerplexityError) -> Self {
        let (exit, help) = match error {
            PerplexityError::Decode(error) => return error.into(),
            PerplexityError::TooShort { .. } => {
                (Exit::Input, Some("give a longer text, or a shorter context with --ctx N"))
            }
            PerplexityError::NoLogits => (Exit::Model, None),
            _ => (Exit::Unexpected, None),
        };
        Self::new(exit, &error).with_help(help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_the_error_in_order() {
        let inner = std::io::Error::other("inner");
        let failure = Failure::new(Exit::File, &inner).with_headline("outer");
        let Kind::Error { exit, chain, .. } = failure.0 else { panic!("an error") };
        assert_eq!((exit, chain), (Exit::File, vec!["outer".to_owned(), "inner".to_owned()]));
    }
}
