//! Test cases in the layout of the ONNX backend tests: a folder per case with a model and recorded tensors.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One case: a model, and inputs with the outputs that it must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendCase {
    /// Name of the folder.
    pub name: String,
    /// The model file.
    pub model: PathBuf,
    /// Recorded runs, `test_data_set_0` and so on.
    pub data_sets: Vec<BackendData>,
}

/// Tensor files of one recorded run, in the order of the model's inputs and outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendData {
    /// `input_0.pb`, `input_1.pb`, …
    pub inputs: Vec<PathBuf>,
    /// `output_0.pb`, `output_1.pb`, …
    pub outputs: Vec<PathBuf>,
}

/// All cases below a folder, in the order of their names; the folder may itself be a case.
/// # Errors
/// A folder cannot be listed.
pub fn backend_cases(folder: &Path) -> io::Result<Vec<BackendCase>> {
    let mut cases = Vec::new();
    collect(folder, 0, &mut cases)?;
    cases.sort_by(|a, b| a.model.cmp(&b.model));
    Ok(cases)
}

/// The suite nests two levels: kind, case.
const DEPTH: usize = 4;

fn collect(folder: &Path, depth: usize, cases: &mut Vec<BackendCase>) -> io::Result<()> {
    let model = folder.join("model.onnx");
    if model.is_file() {
        let name = folder.file_name().map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned());
        cases.push(BackendCase { name, model, data_sets: data_sets(folder)? });
        return Ok(());
    }
    if depth == DEPTH {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), depth + 1, cases)?;
        }
    }
    Ok(())
}

fn data_sets(folder: &Path) -> io::Result<Vec<BackendData>> {
    let mut sets = Vec::new();
    loop {
        let data = folder.join(format!("test_data_set_{}", sets.len()));
        if !data.is_dir() {
            return Ok(sets);
        }
        let numbered = |kind: &str| {
            (0..).map(|i| data.join(format!("{kind}_{i}.pb"))).take_while(|p| p.is_file()).collect::<Vec<_>>()
        };
        sets.push(BackendData { inputs: numbered("input"), outputs: numbered("output") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_found_by_folder_and_in_order() {
        let folder = std::env::temp_dir().join(format!("netproof-backend-{}", std::process::id()));
        let data = folder.join("node/test_b/test_data_set_0");
        fs::create_dir_all(&data).unwrap();
        fs::create_dir_all(folder.join("node/test_a")).unwrap();
        for file in ["node/test_a/model.onnx", "node/test_b/model.onnx"] {
            fs::write(folder.join(file), b"").unwrap();
        }
        for file in ["input_0.pb", "input_1.pb", "output_0.pb"] {
            fs::write(data.join(file), b"").unwrap();
        }
        let cases = backend_cases(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(cases.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["test_a", "test_b"]);
        assert!(cases[0].data_sets.is_empty());
        assert_eq!((cases[1].data_sets[0].inputs.len(), cases[1].data_sets[0].outputs.len()), (2, 1));
    }
}
