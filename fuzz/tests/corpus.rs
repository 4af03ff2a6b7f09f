//! Runs the fuzz targets on the corpus: the seeds and the inputs found so far.

use std::collections::BTreeSet;
use std::fs::read_dir;
use std::path::Path;

#[test]
fn every_seed_passes_its_fuzz_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let names = |path: &Path| -> BTreeSet<String> {
        read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names(&corpus), fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (target, run) in fuzz::TARGETS {
        let seeds = names(&corpus.join(target));
        assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
        for seed in seeds {
            let data = std::fs::read(corpus.join(target).join(&seed)).unwrap();
            let held = std::panic::catch_unwind(|| run(&data));
            assert!(held.is_ok(), "{target}: corpus/{target}/{seed}");
            // Also truncated at every length.
            for end in 0..data.len() {
                run(&data[..end]);
            }
        }
    }
}
