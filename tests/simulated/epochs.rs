//! Steps of training: groups of rollouts of the same prompts, epoch after epoch under weights that move a little, directly
//! and through a sidecar that drafts from what was said before.

use super::rig::{Arm, Rig, TOKENS, policy};
use super::support::fake_vllm::LanguageModel;

/// Rollouts of a prompt.
const SIBLINGS: usize = 8;
/// Whose distribution overlaps with that before the last update by this much at a position, on average.
const ACCEPTANCE: f64 = 0.99;

/// A policy whose texts have nothing more to do with each other once they have parted.
fn parting() -> LanguageModel {
    LanguageModel { drift: 0.006, ..policy() }
}

/// A policy whose texts, parted, soon go on as they would have.
fn planned() -> LanguageModel {
    LanguageModel { plan: 0.95, ..parting() }
}

/// A policy that says what it had planned whatever came before, so that an old token is as good a draft anywhere.
fn even() -> LanguageModel {
    LanguageModel { plan: 1.0, ..parting() }
}

/// What one update leaves of another's distribution along a text, on average.
fn overlap(language: &LanguageModel) -> f64 {
    let (old, new) = (language.with_weights("1"), language.with_weights("2"));
    let mut context = vec![3, 1, 4, 1];
    let mut overlaps = Vec::new();
    for at in 0..2000_u32 {
        let (p, q) = (old.raw(&context), new.raw(&context));
        overlaps.push(p.iter().zip(&q).map(|(p, q)| p.min(*q)).sum::<f64>());
        // A low-discrepancy sequence instead of a random one.
        let mut left = (f64::from(at) * 0.618_033_988_75).fract();
        let drawn = p.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        context.push(drawn.unwrap_or(0) as u32);
    }
    overlaps.iter().sum::<f64>() / overlaps.len() as f64
}

#[test]
fn an_update_leaves_as_much_as_is_said() {
    for language in [parting(), planned(), even()] {
        let overlap = overlap(&language);
        assert!((overlap - ACCEPTANCE).abs() < 0.002, "{overlap}");
    }
}

/// One epoch.
struct Epoch {
    direct: f64,
    proxied: f64,
    /// Shares of the output that were accepted drafts, by drafter.
    shares: Vec<(&'static str, f64)>,
}

impl Epoch {
    fn ratio(&self) -> f64 {
        self.direct / self.proxied
    }

    fn print(&self, name: &str, clients: usize, epoch: u32) {
        let shares: Vec<String> =
            self.shares.iter().map(|(who, share)| format!("{who} {:.0}%", share * 100.0)).collect();
        println!(
            "{name:<28} {clients:>4} at a time, epoch {epoch}: {:>6.2} s direct, {:>6.2} s, ratio {:.3}; {}",
            self.direct,
            self.proxied,
            self.ratio(),
            shares.join(", ")
        );
    }
}

/// Runs so many epochs.
async fn epochs(name: &str, language: LanguageModel, flags: &[&str], clients: usize, epochs: u32) -> Vec<Epoch> {
    let waves = (64 / clients).max(1);
    let rig = Rig::speaking(language, flags).await;
    let accepted = |who: &str| rig.metric("sidedraft_accepted_tokens_total", &format!("\"{who}\""));
    let mut all = Vec::new();
    for epoch in 1..=epochs {
        rig.move_weights(epoch).await;
        let direct = rig.step(Arm::Direct, clients, waves, SIBLINGS.min(clients)).await;
        let before = ["replay", "suffix", "ngram"].map(accepted);
        let proxied = rig.step(Arm::Proxied, clients, waves, SIBLINGS.min(clients)).await;
        let tokens = (clients * waves * TOKENS) as f64;
        let shares = ["replay", "suffix", "ngram"].into_iter().zip(before);
        let shares = shares.map(|(who, before)| (who, (accepted(who) - before) / tokens)).collect();
        let epoch_ = Epoch { direct, proxied, shares };
        epoch_.print(name, clients, epoch);
        all.push(epoch_);
    }
    all
}

const REUSE: [&str; 2] = ["--replay", "--suffix"];

#[tokio::test(start_paused = true)]
async fn old_rollouts_make_eight_at_a_time_three_times_as_fast() {
    let epochs = epochs("planned", planned(), &REUSE, 8, 3).await;
    // What the first replays come to is by chance, and the controller goes by it for a while.
    let [second, third] = [epochs[1].ratio(), epochs[2].ratio()];
    assert!(second.max(third) >= 3.0 && second.min(third) >= 2.0, "{second:.3} and {third:.3}");
}

#[tokio::test(start_paused = true)]
async fn old_rollouts_make_a_crowd_a_third_faster_where_each_old_token_is_as_good() {
    let epochs = epochs("even", even(), &REUSE, 128, 6).await;
    // By then it has saved up what all may lose by finding out.
    let mut ratios: Vec<f64> = epochs[3..].iter().map(Epoch::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[1] >= 1.25 && ratios[0] >= 1.1, "{ratios:?}");
    assert!(epochs.iter().all(|epoch| epoch.ratio() >= 0.97));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_loses_little_by_finding_out_that_old_rollouts_do_not_pay() {
    for (name, language) in [("planned", planned()), ("parting", parting())] {
        let epochs = epochs(name, language, &REUSE, 128, 5).await;
        let (direct, proxied): (f64, f64) =
            epochs.iter().fold((0.0, 0.0), |(a, b), epoch| (a + epoch.direct, b + epoch.proxied));
        // One of these steps tries it, or two.
        assert!(direct / proxied >= 0.96, "{:.3}", direct / proxied);
        assert!(epochs.iter().all(|epoch| epoch.ratio() >= 0.85));
    }
}

#[tokio::test(start_paused = true)]
async fn old_rollouts_slow_nothing_down_where_texts_part_for_good() {
    let epochs = epochs("parting", parting(), &REUSE, 8, 3).await;
    assert!(epochs.iter().all(|epoch| epoch.ratio() >= 0.97));
}

#[tokio::test(start_paused = true)]
async fn siblings_slow_nothing_down() {
    for clients in [1, 8, 32, 128] {
        for (name, language) in [("planned", planned()), ("parting", parting())] {
            let alone = epochs(&format!("{name}, n-grams"), language.clone(), &[], clients, 1).await;
            let siblings = epochs(&format!("{name}, siblings"), language, &["--suffix"], clients, 1).await;
            println!("gain over n-grams alone: {:.3}", alone[0].proxied / siblings[0].proxied);
            assert!(siblings[0].ratio() >= 0.97, "{:.3} with {clients} clients", siblings[0].ratio());
        }
    }
}
