//! The suffix index proposes what a search over all texts finds, keeps to its bounds, and never proposes what nobody wrote.

use proptest::collection::vec;
use proptest::prelude::*;
use sidedraft::history::suffix::{Stream, SuffixIndex};

/// What the index looks at, by the lengths of context that it has chains for.
const VISITED: usize = 32;
const LENGTHS: [usize; 3] = [2, 4, 10];

/// A text, and from where on it was indexed as its own.
#[derive(Debug, Clone, Default)]
struct Text {
    tokens: Vec<u32>,
    own: usize,
}

/// Which text grows, by what, and whether it is a new branch of that text instead.
type Step = (usize, bool, Vec<u32>);

/// An index into which all of `steps` went, and the texts that went in.
fn grown(steps: &[Step], most_tokens: usize) -> (SuffixIndex, Vec<Text>) {
    let mut index = SuffixIndex::new(most_tokens);
    let mut streams = vec![Stream::default()];
    let mut texts = vec![Text::default()];
    for (choice, is_branch, tokens) in steps {
        let mut at = choice % streams.len();
        if *is_branch {
            streams.push(streams[at].branch());
            let tokens = texts[at].tokens.clone();
            texts.push(Text { own: tokens.len(), tokens });
            at = streams.len() - 1;
        }
        index.extend(&mut streams[at], tokens);
        texts[at].tokens.extend(tokens);
    }
    (index, texts)
}

fn steps(alphabet: u32, most: usize) -> impl Strategy<Value = Vec<Step>> {
    vec((any::<usize>(), proptest::bool::weighted(0.3), vec(0..alphabet, 0..most)), 1..8)
}

fn agreement(text: &[u32], at: usize, context: &[u32]) -> usize {
    text[..at].iter().rev().zip(context.iter().rev()).take_while(|(a, b)| a == b).count().min(32)
}

/// Every place after the last two tokens of `context` and maybe more: text, place and how many agree.
fn places(texts: &[Text], context: &[u32]) -> Vec<(usize, usize, usize)> {
    let all =
        texts.iter().enumerate().flat_map(|(index, text)| (text.own..text.tokens.len()).map(move |at| (index, at)));
    let measured = all.map(|(index, at)| (index, at, agreement(&texts[index].tokens, at, context)));
    measured.filter(|(_, _, agreeing)| *agreeing >= 2).collect()
}

/// How likely `token` is at places given as (token, agreement), in the words of the definition.
fn estimate(places: &[(u32, usize)], token: u32, length: usize) -> f32 {
    let here: Vec<_> = places.iter().filter(|(_, agreeing)| *agreeing >= length).collect();
    let shorter = if length > 2 { estimate(places, token, length / 2) } else { 0.0 };
    if here.is_empty() {
        return shorter;
    }
    let agreeing = here.iter().filter(|(other, _)| *other == token).count();
    (agreeing as f32 + shorter) / (here.len() as f32 + 1.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_proposal_is_what_a_search_over_all_texts_finds(
        steps in steps(4, 14), context in vec(0..4_u32, 0..12), length in 0..6_usize, least in 0.0..0.5_f32,
    ) {
        let (mut index, texts) = grown(&steps, 1 << 12);
        // Mostly the context is one of the texts.
        let context = if context.len() < 6 { texts.last().unwrap().tokens.clone() } else { context };
        let mut places = places(&texts, &context);
        let chained = |shortest: &usize| places.iter().filter(|(_, _, agreeing)| agreeing >= shortest).count();
        if LENGTHS.iter().map(chained).sum::<usize>() > VISITED {
            return Ok(());
        }
        let proposal = index.propose(&context, length, least).to_vec();
        let mut survival = 1.0;
        for step in 0..=proposal.len() {
            let here: Vec<_> = places.iter().map(|(text, at, agreeing)| (texts[*text].tokens[*at], *agreeing)).collect();
            let best = here.iter().map(|(token, _)| estimate(&here, *token, 32)).fold(0.0, f32::max);
            let Some((token, said)) = proposal.get(step) else {
                prop_assert!(step == length || survival * best < least.max(1e-9) + 1e-6, "{best} at {step}");
                break;
            };
            prop_assert!((said - best).abs() < 1e-6 && (said - estimate(&here, *token, 32)).abs() < 1e-6);
            survival *= said;
            prop_assert!(survival >= least);
            places.retain(|(text, at, _)| texts[*text].tokens[*at] == *token && at + 1 < texts[*text].tokens.len());
            places.iter_mut().for_each(|(_, at, agreeing)| (*at, *agreeing) = (*at + 1, *agreeing + 1));
        }
    }

    /// More text than fits: pages are used again, by other texts, while old ones still grow.
    #[test]
    fn a_full_index_keeps_to_its_bounds_and_proposes_only_what_was_written(
        rounds in vec(steps(6, 90), 1..4), most_pages in 1..6_usize, context in vec(0..6_u32, 2..4),
    ) {
        let steps = rounds.concat();
        let (mut index, texts) = grown(&steps, 64 * most_pages);
        prop_assert!(index.len() <= 64 * most_pages && index.bytes() <= SuffixIndex::most_bytes(64 * most_pages));
        let tokens: Vec<u32> = index.propose(&context, 8, 0.0).iter().map(|(token, _)| *token).collect();
        if !tokens.is_empty() {
            let written = [&context[context.len() - 2..], &tokens].concat();
            let is_in = |text: &Text| text.tokens.windows(written.len()).any(|window| window == written);
            prop_assert!(texts.iter().any(is_in), "{written:?}");
        }
    }
}

#[test]
fn the_latest_of_very_many_places_are_looked_at() {
    let mut index = SuffixIndex::new(1 << 12);
    let mut stream = Stream::default();
    (0..100).for_each(|i| index.extend(&mut stream, &[1, 2, 100 + i]));
    let proposal = index.propose(&[7, 1, 2], 1, 0.0);
    assert_eq!(proposal[0].0, 199);
    assert!((proposal[0].1 - 1.0 / 33.0).abs() < 1e-6);
    assert_eq!(index.propose(&[2, 100, 1, 2], 1, 0.0)[0].0, 101, "the longest context, though others came later");
}

#[test]
fn what_left_is_forgotten_and_what_came_last_is_not() {
    let mut index = SuffixIndex::new(64 * 4);
    let mut stream = Stream::default();
    index.extend(&mut stream, &(0..1000).collect::<Vec<_>>());
    assert_eq!(index.propose(&[5, 6], 2, 0.0), []);
    assert_eq!(index.propose(&[990, 991], 2, 0.0).iter().map(|(token, _)| *token).collect::<Vec<_>>(), [992, 993]);
}
