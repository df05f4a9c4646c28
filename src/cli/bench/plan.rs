//! Which rollouts a round has, which arm goes first, and which salt keeps them apart.

use super::record::Arm;
use super::workload::Line;

/// The rollouts of round `pair`: `count` of them, each an index into `lines`. A line stands for `n` rollouts, lines come
/// in turn, and each pair goes on where the one before it ended, so that both arms of a pair have the same.
pub(super) fn rollouts(lines: &[Line], count: usize, pair: usize) -> Vec<usize> {
    let copies = lines.iter().enumerate().flat_map(|(index, line)| std::iter::repeat_n(index, line.n));
    let all: Vec<usize> = copies.collect();
    let start = (pair * count) % all.len().max(1);
    all.iter().copied().cycle().skip(start).take(count).collect()
}

/// The rollouts of a step: `samples` of each of `prompts` lines, of which there are as many at least. Each step goes on where
/// the one before it ended, and begins again where too few lines are left; how often that happened before it, too.
pub(super) fn step(lines: usize, prompts: usize, samples: usize, step: usize) -> (Vec<usize>, usize) {
    let steps = (lines / prompts.max(1)).max(1);
    let start = step % steps * prompts;
    let all = (start..start + prompts).flat_map(|line| std::iter::repeat_n(line, samples));
    (all.collect(), step / steps)
}

/// The arms of round `pair` in their order: each is first as often as the other, so that neither always finds the
/// machine as the other left it.
pub(super) fn order(arms: &[Arm], pair: usize) -> Vec<Arm> {
    let mut order = arms.to_vec();
    if pair % 2 == 1 {
        order.reverse();
    }
    order
}

/// The salt of one arm's round, by which no other round of this or another run finds its tokens in the prefix cache.
/// All salts of a run are equally long.
pub(super) fn salt(run: &str, cell: usize, pair: usize, arm: Arm) -> String {
    let side = match arm {
        Arm::Direct => 'd',
        Arm::Proxied => 'p',
    };
    format!("bench-{run}-{cell:04}-{pair:04}-{side}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::workload::Prompt;
    use super::*;

    fn lines(copies: &[usize]) -> Vec<Line> {
        let line = |n: &usize| Line {
            number: 1,
            prompt: Prompt::Plain("a".into()),
            group: None,
            n: *n,
            max_tokens: None,
            temperature: None,
            answer: None,
        };
        copies.iter().map(line).collect()
    }

    #[test]
    fn rounds_take_the_lines_in_turn_and_begin_again() {
        let lines = lines(&[1, 3, 1]);
        assert_eq!(rollouts(&lines, 4, 0), [0, 1, 1, 1]);
        assert_eq!(rollouts(&lines, 4, 1), [2, 0, 1, 1]);
        assert_eq!(rollouts(&lines, 7, 0), [0, 1, 1, 1, 2, 0, 1]);
    }

    #[test]
    fn steps_sample_their_prompts_and_tell_when_these_come_again() {
        assert_eq!(step(5, 2, 2, 0), (vec![0, 0, 1, 1], 0));
        assert_eq!(step(5, 2, 2, 1), (vec![2, 2, 3, 3], 0));
        assert_eq!(step(5, 2, 2, 2), (vec![0, 0, 1, 1], 1));
        assert_eq!(step(2, 2, 1, 3), (vec![0, 1], 3));
    }

    #[test]
    fn each_arm_is_first_in_every_other_pair() {
        let both = [Arm::Direct, Arm::Proxied];
        assert_eq!(order(&both, 0), [Arm::Direct, Arm::Proxied]);
        assert_eq!(order(&both, 1), [Arm::Proxied, Arm::Direct]);
        assert_eq!(order(&both, 2), order(&both, 0));
        assert_eq!(order(&[Arm::Proxied], 1), [Arm::Proxied]);
    }

    #[test]
    fn no_two_rounds_share_a_salt_and_all_are_equally_long() {
        let mut salts = HashSet::new();
        for (cell, pair) in [(0, 0), (0, 1), (1, 0), (12, 345)] {
            for arm in [Arm::Direct, Arm::Proxied] {
                assert!(salts.insert(salt("r", cell, pair, arm)));
            }
        }
        assert_eq!(salts.iter().map(String::len).collect::<HashSet<_>>().len(), 1);
    }
}
