//! What the selector decided, with every candidate: the data. Its text is in `report`.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::Policy;
use crate::backend::{Backend, Device, Ineligible, Score, Workload};

/// The backend and device that run a model, and all that were considered.
///
/// `Display` writes the report for people; `Serialize` the one for programs: `winner` is an id, and each of
/// `candidates` has `id`, `device`, and `predicted_tokens_per_second` or `ineligible` with the reason.
#[derive(Debug, Clone)]
pub struct Selection {
    backend: &'static dyn Backend,
    device: Device,
    prediction: Prediction,
    policy: Policy,
    workload: Workload,
    candidates: Vec<Candidate>,
}

impl Selection {
    /// The selection of the first of the ordered `candidates`; gives them back when it, and so none, can run.
    pub(super) fn of_first(
        candidates: Vec<Candidate>,
        backend: impl FnOnce(&str) -> Option<&'static dyn Backend>,
        policy: &Policy,
        workload: Workload,
    ) -> Result<Self, Vec<Candidate>> {
        let first = candidates
            .first()
            .and_then(|first| Some((backend(first.id)?, first.device.clone()?, *first.prediction()?)));
        match first {
            Some((backend, device, prediction)) => {
                Ok(Self { backend, device, prediction, policy: policy.clone(), workload, candidates })
            }
            None => Err(candidates),
        }
    }

    /// The backend to load the model with.
    pub fn backend(&self) -> &'static dyn Backend {
        self.backend
    }

    /// The device to load it on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How fast it will be.
    pub fn prediction(&self) -> &Prediction {
        &self.prediction
    }

    /// The policy that was applied.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The workload that the predictions are for.
    pub fn workload(&self) -> Workload {
        self.workload
    }

    /// Every registered backend, once for each of its devices, or once without one: the winner first, then the others
    /// that can run in the order in which they would follow it, then the rest by id.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The candidates that can run; the first is the winner.
    pub fn eligible(&self) -> impl Iterator<Item = (&Candidate, &Prediction)> {
        self.candidates.iter().map_while(|candidate| Some((candidate, candidate.prediction()?)))
    }
}

/// Equal when they chose the same from the same; backends are compared by id.
impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        self.backend.id() == other.backend.id()
            && self.device == other.device
            && self.prediction == other.prediction
            && self.policy == other.policy
            && self.workload == other.workload
            && self.candidates == other.candidates
    }
}

/// One backend on one device, or a backend that has no device here.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Candidate {
    /// The backend's id.
    pub id: &'static str,
    /// The backend's summary.
    pub summary: String,
    /// The device; `None` when the backend has none, or was not asked because the policy rules it out.
    pub device: Option<Device>,
    /// Whether it can run the model.
    pub outcome: Outcome,
}

impl Candidate {
    /// The prediction, if the candidate can run.
    pub fn prediction(&self) -> Option<&Prediction> {
        match &self.outcome {
            Outcome::Eligible(prediction) => Some(prediction),
            Outcome::Ineligible(_) => None,
        }
    }

    /// The reason why the candidate cannot run, if it cannot.
    pub fn ineligible(&self) -> Option<&Ineligible> {
        match &self.outcome {
            Outcome::Eligible(_) => None,
            Outcome::Ineligible(reason) => Some(reason),
        }
    }
}

/// Whether a candidate can run a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It can, at about this speed.
    Eligible(Prediction),
    /// It cannot.
    Ineligible(Ineligible),
}

/// How fast a candidate runs a model.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Prediction {
    /// Prompt and decode speed.
    pub score: Score,
    /// Both in the proportion of the workload. Finite and above zero.
    pub tokens_per_second: f64,
    /// Where the rates come from.
    pub basis: Basis,
}

/// Where the rates behind a [`Prediction`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Basis {
    /// The backend's own knowledge of machines like this one.
    Estimate,
    /// A [`Calibration`](super::Calibration) of this machine.
    Measurement,
}

impl Serialize for Selection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Selection", 7)?;
        object.serialize_field("winner", self.backend.id())?;
        object.serialize_field("device", &self.device)?;
        object.serialize_field("predicted_tokens_per_second", &self.prediction.tokens_per_second)?;
        object.serialize_field("reason", &self.explain())?;
        object.serialize_field("policy", &self.policy)?;
        object.serialize_field("workload", &self.workload)?;
        object.serialize_field("candidates", &self.candidates)?;
        object.end()
    }
}

impl Serialize for Candidate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Candidate", 7)?;
        object.serialize_field("id", self.id)?;
        object.serialize_field("summary", &self.summary)?;
        object.serialize_field("device", &self.device.as_ref().map(|device| &device.id))?;
        match &self.outcome {
            Outcome::Eligible(prediction) => {
                object.serialize_field("predicted_tokens_per_second", &prediction.tokens_per_second)?;
                object.serialize_field("prompt_tokens_per_second", &prediction.score.prompt)?;
                object.serialize_field("decode_tokens_per_second", &prediction.score.decode)?;
                object.serialize_field("basis", &prediction.basis)?;
            }
            Outcome::Ineligible(reason) => {
                object.serialize_field("ineligible", &reason.to_string())?;
                // The same for programs: `{"unavailable": {"missing_cpu_features": [..]}}`.
                object.serialize_field("cause", reason)?;
            }
        }
        object.end()
    }
}
