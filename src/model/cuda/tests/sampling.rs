//! The device draws as the CPU does, whatever the logits.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::emulated::Emulated;
use super::{SMALL, shapes};
use crate::model::cuda::batch::{self, Bucket, DRAWN, Part};
use crate::model::cuda::device::{Address, Device, Launch};
use crate::model::cuda::geometry;
use crate::model::cuda::source::{Kernel, Shape};
use crate::model::sample::{DraftSampling, DraftedToken, Row, draw};

/// Draws one token of each row on the emulated device, as often as told with the same result.
pub(super) fn draws(rows: &[(Vec<f32>, DraftSampling, f64)], times: usize) -> Vec<Option<DraftedToken>> {
    let weights = shapes::tiny_llama();
    let config = &weights.config;
    let mut device = Emulated::new(SMALL, Shape { config: config.clone(), bias: false, qk_norms: false }, false);
    let parts: Vec<_> = rows
        .iter()
        .map(|(_, sampling, uniform)| Part {
            pages: &[0],
            start: 0,
            tokens: &[0],
            sampling: Some(sampling),
            uniforms: std::slice::from_ref(uniform),
        })
        .collect();
    let bucket = Bucket { rows: rows.len(), batch: rows.len(), steps: 1, several: false };
    let mut packed = Vec::new();
    let layout = batch::pack(&parts, bucket, &[], 0, &mut packed);
    let mut place = |bytes: &[u8], room: usize| {
        let place = device.allocate(room.max(bytes.len())).unwrap();
        device.upload(place, bytes).unwrap();
        place
    };
    let logits: Vec<u8> = rows.iter().flat_map(|(logits, ..)| logits.iter().flat_map(|x| x.to_le_bytes())).collect();
    let embedding: Vec<u8> = weights.embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (logits, inputs, embedding) = (place(&logits, 0), place(&packed, 0), place(&embedding, 0));
    let found = place(&[], rows.len() * geometry::slices(config) * 256);
    let (counters, drawn) = (place(&[], rows.len() * 4), place(&[], rows.len() * DRAWN));
    let x = place(&[], rows.len() * config.hidden * 4);
    let at = |offset| -> Address { inputs.plus(offset) };
    let arguments =
        [logits, at(layout.samplings), at(layout.uniforms), embedding, found, counters, drawn, x].map(Into::into);
    let launch = Launch {
        kernel: Kernel::Sample,
        grid: [geometry::slices(config), rows.len(), 1],
        threads: 256,
        shared: 0,
        arguments: arguments.to_vec(),
        writes: vec![],
    };
    device.run(&vec![launch; times]).unwrap();
    let mut bytes = vec![0; rows.len() * DRAWN];
    device.download(drawn, &mut bytes).unwrap();
    let (drawn, _) = bytes.as_chunks::<DRAWN>();
    let drafts: Vec<_> =
        drawn.iter().zip(rows).map(|(drawn, (_, sampling, _))| batch::unpack(drawn, sampling)).collect();
    let mut embedded = vec![0; rows.len() * config.hidden * 4];
    device.download(x, &mut embedded).unwrap();
    for (draft, row) in drafts.iter().zip(embedded.chunks(config.hidden * 4)) {
        let token = draft.as_ref().map_or(0, |draft| draft.token as usize);
        let wanted = weights.embedding[token * config.hidden..][..config.hidden].iter();
        assert!(wanted.flat_map(|half| shapes::widen(*half).to_le_bytes()).eq(row.iter().copied()));
    }
    drafts
}

pub(super) fn wide(mut logit: impl FnMut(usize) -> f32) -> Vec<f32> {
    (0..shapes::tiny_llama().config.vocabulary).map(&mut logit).collect()
}

#[test]
fn tokens_distributions_and_confidence_are_those_of_the_cpu() {
    let mut rng = StdRng::seed_from_u64(9);
    let mut rows = Vec::new();
    let kinds: [&dyn Fn(usize, f32) -> f32; 8] = [
        &|_, x| 8.0 * x,
        // Ties everywhere, and a tie across slices.
        &|_, x| (4.0 * x).round(),
        &|_, _| 1.5,
        &|id, _| if id % 2 == 0 { 0.0 } else { -0.0 },
        // Few that are finite, in both slices.
        &|id, x| if id % 300 == 7 { x } else { [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][id % 3] },
        &|id, _| id as f32,
        &|id, _| -(id as f32),
        &|id, x| if id == 1099 { 40.0 } else { x },
    ];
    for kind in kinds {
        for (temperature, top_m, usable) in [
            (1.0, 32, usize::MAX),
            (0.0, 32, usize::MAX),
            (f64::NAN, 9, 700),
            (0.01, 7, 1050),
            (3.0, 1, 20),
            (1e-300, 32, 400),
        ] {
            let logits = wide(|id| kind(id, rng.random_range(-1.0..1.0)));
            let sampling = DraftSampling { top_m, usable_vocabulary: usable, ..DraftSampling::new(1, temperature) };
            rows.push((logits, sampling, rng.next_seed()));
        }
    }
    let with_uniforms: Vec<_> = rows
        .iter()
        .map(|(logits, sampling, seed)| (logits.clone(), sampling.clone(), StdRng::seed_from_u64(*seed).random()))
        .collect();
    // Twice: the first run has to leave the counters as it found them.
    for (drawn, (logits, sampling, seed)) in draws(&with_uniforms, 2).iter().zip(&rows) {
        let row = Row { logits, ids: None };
        let wanted = draw(row, sampling, &mut StdRng::seed_from_u64(*seed)).unwrap();
        let drawn = drawn.as_ref().unwrap();
        assert_eq!(drawn.token, wanted.token, "{sampling:?}");
        assert!((drawn.confidence - wanted.confidence).abs() < 1e-6);
        match (&drawn.distribution, &wanted.distribution) {
            (None, None) => {
                let samples = sampling.temperature > 0.0;
                assert!(!samples);
            }
            (Some(drawn), Some(wanted)) => {
                assert!(drawn.iter().map(|(id, _)| id).eq(wanted.iter().map(|(id, _)| id)), "{sampling:?}");
                assert!(drawn.iter().zip(wanted).all(|(drawn, wanted)| (drawn.1 - wanted.1).abs() < 1e-15));
            }
            _ => panic!("{sampling:?}: a point mass here, a distribution there"),
        }
    }
}

#[test]
fn a_row_without_a_finite_logit_is_a_fault_and_no_other_row_is() {
    let greedy = || DraftSampling::new(1, 0.0);
    let none = (wide(|_| f32::NAN), DraftSampling::new(1, 1.0), 0.5);
    let drawn = draws(&[none, (wide(|id| if id == 3 { 1.0 } else { 0.0 }), greedy(), 0.5)], 1);
    assert_eq!(drawn[0], None);
    assert_eq!(drawn[1].as_ref().unwrap().token, 3);
}

/// Seeds of the numbers that a draw takes.
trait Seeds {
    fn next_seed(&mut self) -> u64;
}

impl Seeds for StdRng {
    fn next_seed(&mut self) -> u64 {
        self.random()
    }
}
