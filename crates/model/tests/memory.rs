//! What a loaded model keeps in memory.

use edgethink_model::{Family, Model};
use edgethink_testkit::tiny_model;

/// Reading one norm on the mapping makes 64 kB of the file around it resident; over all layers of a small model that was 8 MB.
#[test]
fn matrices_stay_on_the_file_and_vectors_do_not() {
    let dir = tiny_model(Family::Qwen2, 1);
    let model = Model::load(dir.path().to_str().expect("UTF-8")).expect("it loads");
    for (name, tensor) in model.weights.named() {
        let vector = tensor.shape.len() == 1;
        assert_eq!(tensor.storage().is_mapped(), !vector, "{name}");
    }
}
