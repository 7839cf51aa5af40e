//! What a check and a remedy are, and the registries that list them.

use std::time::Instant;

use netproof_core::{Card, Finding, Picture, Provenance};
use netproof_data::png_bytes;
use netproof_stats::Level;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::progress::Progress;
use crate::store::picture_file;
use crate::{AuditError, Draft, Remedy, RunFolder, Subject};

/// Most pixels of a picture along one side.
pub const PICTURE_SIDE: usize = 4096;

/// Measures a subject and answers with findings.
pub trait Check: Send + Sync {
    /// The findings. An error becomes one failed finding, so a check reports what it can before it gives up.
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError>;

    /// Whether what it finds depends on how the network is trained: then the recipe, and whether it may retrain, are part
    /// of the key of its findings.
    fn retrains(&self) -> bool {
        false
    }
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// Reproducible: the same for the same subject, options and seed.
    pub reproducible: Vec<Finding>,
    /// Readings of a clock or a meter.
    pub clocked: Vec<Finding>,
}

impl From<Vec<Finding>> for Findings {
    fn from(reproducible: Vec<Finding>) -> Self {
        Self { reproducible, clocked: Vec::new() }
    }
}

/// What a method may know about the run.
pub struct Context<'a> {
    /// The method's card.
    pub card: &'static Card,
    /// Seed of every random draw.
    pub seed: u64,
    /// Confidence level of intervals.
    pub level: Level,
    /// Where to say how far the work is.
    pub progress: &'a dyn Progress,
    /// When the work must be over.
    pub deadline: Option<Instant>,
    /// Whether networks may be trained, which takes minutes.
    pub may_train: bool,
    /// Where pictures and trained networks go; without it pictures are only named.
    pub(crate) folder: Option<&'a RunFolder>,
    pub(crate) provenance: Provenance,
}

impl<'a> Context<'a> {
    /// The same context with a folder for pictures.
    #[must_use]
    pub fn with_folder(self, folder: &'a RunFolder) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// Makes a picture of 8 bits per channel and keeps it in the run folder; the evidence of a finding, or a part of a
    /// gallery. Without a run folder only its hash is kept, so that findings are the same with one and without.
    /// # Shapes
    /// `size` is width, height and channels, 1 (grey) or 3 (red, green, blue); `pixels [height, width, channels]`
    /// # Errors
    /// The pixels are no such picture, a side is 0 or over [`PICTURE_SIDE`], or the folder cannot be written.
    pub fn picture(
        &self,
        title: impl Into<String>,
        alt: impl Into<String>,
        size: [usize; 3],
        pixels: &[u8],
    ) -> Result<Picture, AuditError> {
        let [width, height, channels] = size;
        let sides = 1..=PICTURE_SIDE;
        let fits = sides.contains(&width) && sides.contains(&height) && matches!(channels, 1 | 3);
        if !fits || pixels.len() != width * height * channels {
            return Err(AuditError::Picture { size, pixels: pixels.len(), most: PICTURE_SIDE });
        }
        let bytes = png_bytes(size, pixels)?;
        let (file, sha256) = picture_file(&bytes);
        if let Some(folder) = self.folder {
            folder.keep_picture(&file, &bytes)?;
        }
        let (width, height) = (width as u32, height as u32);
        Ok(Picture { title: title.into(), file, sha256, width, height, alt: alt.into(), warning: None })
    }

    /// Begins a finding: `what` was measured becomes the second part of its id.
    pub fn finding(&self, what: &str, title: &str) -> Draft {
        Draft::new(self.card.id, what, self.card.challenge, title, self.provenance.clone())
    }

    /// # Errors
    /// The time is over, or a person asked to end.
    pub fn check_time(&self) -> Result<(), AuditError> {
        if self.progress.stopped() {
            return Err(AuditError::Interrupted);
        }
        match self.deadline {
            Some(end) if Instant::now() >= end => Err(AuditError::OutOfTime),
            _ => Ok(()),
        }
    }
}

/// A method with its options, ready to run.
pub struct Configured<M: ?Sized> {
    /// Its card.
    pub card: &'static Card,
    /// The method.
    pub method: Box<M>,
    /// All options as JSON, defaults included; part of the key under which findings are kept.
    pub options: String,
}

impl<M: ?Sized> std::fmt::Debug for Configured<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Configured").field("id", &self.card.id).field("options", &self.options).finish()
    }
}

/// One line of a registry.
pub struct Entry<M: ?Sized + 'static> {
    /// The method's card.
    pub card: &'static Card,
    /// Reads the options of `--set` and project files.
    pub build: fn(&'static Card, toml::Table) -> Result<Configured<M>, AuditError>,
}

/// A registry of checks.
pub type Checks = &'static [Entry<dyn Check>];
/// A registry of remedies.
pub type Remedies = &'static [Entry<dyn Remedy>];

/// Reads options into a check.
/// # Errors
/// An option is unknown or has a wrong type.
pub fn check<C: Check + Serialize + DeserializeOwned + 'static>(
    card: &'static Card,
    options: toml::Table,
) -> Result<Configured<dyn Check>, AuditError> {
    let (method, options) = parse::<C>(card, options)?;
    Ok(Configured { card, method: Box::new(method), options })
}

/// Reads options into a remedy.
/// # Errors
/// An option is unknown or has a wrong type.
pub fn remedy<R: Remedy + Serialize + DeserializeOwned + 'static>(
    card: &'static Card,
    options: toml::Table,
) -> Result<Configured<dyn Remedy>, AuditError> {
    let (method, options) = parse::<R>(card, options)?;
    Ok(Configured { card, method: Box::new(method), options })
}

/// Reads the options of `--set` into a method of any family, and gives them back as JSON, defaults included.
/// # Errors
/// An option is unknown or has a wrong type.
pub fn parse<T: Serialize + DeserializeOwned>(card: &Card, options: toml::Table) -> Result<(T, String), AuditError> {
    let fail = |message: String| {
        let known: Vec<_> = card.options.iter().map(|o| format!("{} = {}", o.name, o.default)).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        AuditError::Option { id: card.id.to_owned(), message: format!("{}; {known}", message.trim()) }
    };
    let method: T = options.try_into().map_err(|e: toml::de::Error| fail(e.message().to_owned()))?;
    let json = serde_json::to_string(&method)?;
    Ok((method, json))
}

/// Entries whose id is in `only` (all where it is empty) and not in `skip`, with their options.
/// # Errors
/// An id is unknown, or an option is wrong.
pub fn select<M: ?Sized>(
    kind: &'static str,
    entries: &'static [Entry<M>],
    only: &[String],
    skip: &[String],
    options: &toml::Table,
) -> Result<Vec<Configured<M>>, AuditError> {
    let known = || entries.iter().map(|e| e.card.id.to_owned()).collect::<Vec<_>>();
    for id in only.iter().chain(skip) {
        if !entries.iter().any(|e| e.card.id == id) {
            return Err(AuditError::UnknownId { kind, id: id.clone(), known: known() });
        }
    }
    entries
        .iter()
        .filter(|e| {
            (only.is_empty() || only.iter().any(|id| id == e.card.id)) && !skip.iter().any(|id| id == e.card.id)
        })
        .map(|e| match options.get(e.card.id) {
            None => (e.build)(e.card, toml::Table::new()),
            Some(toml::Value::Table(t)) => (e.build)(e.card, t.clone()),
            Some(_) => {
                Err(AuditError::Option { id: e.card.id.to_owned(), message: "must be a table of options".to_owned() })
            }
        })
        .collect()
}
