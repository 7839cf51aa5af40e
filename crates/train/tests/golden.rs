//! Networks that PyTorch exported are fine-tuned on the 16 images that the repository has, and save as files that open.

use std::path::{Path, PathBuf};

use netproof_data::{Dataset, Labels, Limits, OpenOptions};
use netproof_graph::Model;
use netproof_tensor::Tensor;
use netproof_train::{DataSection, Ended, Job, Method, Recipe, Registry, RunOptions, train};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn rows() -> Dataset {
    let arrays = netproof_data::read_npz(&golden("fashion-16.npz"), &["images", "labels"], Limits::default()).unwrap();
    let images = arrays[0].as_i64().unwrap().iter().map(|&v| v as f32 / 255.0).collect();
    let labels = arrays[1].as_i64().unwrap().iter().map(|&v| v as usize).collect();
    let images = Tensor::f32(vec![16, 1, 28, 28], images).unwrap();
    Dataset::from_memory(images, Labels::Classes(labels), Vec::new(), &OpenOptions::default()).unwrap()
}

fn recipe(file: &str, head: bool) -> Recipe {
    let network = Method::new("file").with("path", golden(file).to_str().unwrap()).with("replace_head", head);
    Recipe {
        epochs: 6,
        batch_size: 8,
        optimiser: Method::new("adamw").with("learning_rate", 1e-3),
        ..Recipe::new(DataSection::new("-"), network)
    }
}

#[test]
fn imported_networks_learn_and_open_again() {
    let registry = Registry::default();
    let folder = tempfile::tempdir().unwrap();
    for file in ["fashion-resnet.onnx", "fashion-vit.onnx", "fashion-mobilenet.onnx"] {
        let recipe = recipe(file, false);
        // The rows are their own validation here, so that the best is the best on what was learnt.
        let model = Model::load(&golden(file)).unwrap();
        let job = Job::new(&recipe, model, rows(), Some(rows())).unwrap();
        let trained = train(&recipe, job, &registry, &RunOptions::default()).unwrap();
        let (start, epochs) = (trained.record.start.unwrap(), &trained.record.epochs);
        let best = epochs[trained.record.best_epoch as usize - 1].validation.unwrap();
        assert_eq!(trained.record.ended, Ended::Completed);
        assert!(best.loss < 0.7 * start.loss && best.accuracy >= start.accuracy, "{file}: {start:?} {best:?}");
        let path = folder.path().join(file);
        trained.model.save(&path).unwrap();
        let images = rows().load().unwrap().features;
        let again = Model::load(&path).unwrap().predict(&images).unwrap();
        assert_eq!(again, trained.model.predict(&images).unwrap(), "{file}");
    }
}

#[test]
fn a_new_head_learns_other_classes() {
    let registry = Registry::default();
    let batch = rows().load().unwrap();
    let odd = Labels::Classes(batch.labels.classes().unwrap().iter().map(|c| c % 2).collect());
    let data = Dataset::from_memory(batch.features, odd, Vec::new(), &OpenOptions::default()).unwrap();
    for file in ["fashion-resnet.onnx", "fashion-vit.onnx", "fashion-mobilenet.onnx"] {
        let recipe = recipe(file, true);
        let purpose = netproof_train::Purpose { row: vec![1, 28, 28], outputs: 2, seed: 1 };
        let network = registry.architectures.build(&recipe.network, &registry).unwrap();
        let model = network.network(&purpose).unwrap();
        let job = Job::new(&recipe, model, data.clone(), Some(data.clone())).unwrap();
        let trained = train(&recipe, job, &registry, &RunOptions::default()).unwrap();
        assert!(trained.record.best_epoch > 0, "{file}: {:?}", trained.record);
        assert_eq!(trained.model.predict(&Tensor::zeros(vec![1, 1, 28, 28]).unwrap()).unwrap().shape(), [1, 2]);
    }
}
