//! A rollout's text and finish against a naive reference that looks at everything after each token.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use proptest::collection::vec;
use proptest::prelude::*;
use sidedraft::rollout::{Finish, FinishReason, FinishRules, Sequence, StopReason, TextRules};
use sidedraft::speculation::Scored;
use sidedraft::text::{StopStrings, Tokenizer};
use sidedraft::upstream::EndToken;

use super::support::fake_vllm::TextCodec;

const VOCABULARY: usize = 64;
const END: u32 = VOCABULARY as u32 - 1;
const SECOND_END: u32 = 30;

fn codec() -> &'static (TextCodec, Tokenizer) {
    static CODEC: OnceLock<(TextCodec, Tokenizer)> = OnceLock::new();
    CODEC.get_or_init(|| {
        let codec = TextCodec::new(VOCABULARY);
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::load(&codec.write(folder.path())).unwrap();
        (codec, tokenizer)
    })
}

/// Tokens that spell whole characters, some of them in several tokens, and now and then an end.
fn tokens() -> impl Strategy<Value = Vec<u32>> {
    let spelt = |text: &str| codec().0.encode(text);
    let word = prop_oneof![
        8 => (0..6_u32).prop_map(|id| vec![id]),
        2 => (49..56_u32).prop_map(|id| vec![id]),
        2 => Just(spelt("é")),
        1 => Just(spelt("😀")),
        1 => Just(vec![END]),
        1 => Just(vec![SECOND_END]),
    ];
    vec(word, 1..20).prop_map(|words| words.concat())
}

#[derive(Debug, Clone)]
struct Case {
    tokens: Vec<u32>,
    stop: Vec<String>,
    include: bool,
    ignore_eos: bool,
    skip_special_tokens: bool,
    stop_token_ids: Vec<u32>,
    max_tokens: usize,
    room: usize,
    borders: Vec<bool>,
}

fn case() -> impl Strategy<Value = Case> {
    let stop = vec("[ abcdeé]{1,3}|the|in|😀", 0..3);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let limits = (1..25_usize, 1..25_usize);
    (tokens(), stop, flags, vec(0..6_u32, 0..2), limits, vec(any::<bool>(), 100)).prop_map(
        |(tokens, stop, (include, ignore_eos, skip_special_tokens), stop_token_ids, (max_tokens, room), borders)| {
            Case { tokens, stop, include, ignore_eos, skip_special_tokens, stop_token_ids, max_tokens, room, borders }
        },
    )
}

/// What the first tokens come to: text, finish, and how many of them there are.
fn naive(case: &Case) -> (String, Option<Finish>, usize) {
    let mut shown: Vec<u32> = Vec::new();
    let finish = |reason, stop| Some(Finish { reason, stop });
    for (index, &token) in case.tokens.iter().enumerate() {
        let count = index + 1;
        let by_token = if token == END && !case.ignore_eos {
            finish(FinishReason::Stop, None)
        } else if (token == SECOND_END && !case.ignore_eos) || case.stop_token_ids.contains(&token) {
            finish(FinishReason::Stop, Some(StopReason::Token(token)))
        } else {
            None
        };
        let before = text_of(&shown, case.skip_special_tokens).len();
        if by_token.is_none() || case.include {
            shown.push(token);
        }
        let text = text_of(&shown, case.skip_special_tokens);
        let ends = (before + 1..=text.len()).filter(|end| text.is_char_boundary(*end));
        let found =
            ends.filter_map(|end| Some((end, case.stop.iter().find(|stop| text[..end].ends_with(&***stop))?))).next();
        if let Some((end, stop)) = found {
            let cut = if case.include { end } else { end - stop.len() };
            return (text[..cut].to_owned(), finish(FinishReason::Stop, Some(StopReason::Text(stop.clone()))), count);
        }
        if by_token.is_some() {
            return (text, by_token, count);
        }
        if count >= case.max_tokens.min(case.room) {
            return (text, finish(FinishReason::Length, None), count);
        }
    }
    (text_of(&shown, case.skip_special_tokens), None, case.tokens.len())
}

/// The text of whole characters alone.
fn text_of(tokens: &[u32], skip_special_tokens: bool) -> String {
    let text = codec().0.decode(tokens, skip_special_tokens);
    text.trim_end_matches('\u{fffd}').to_owned()
}

fn sequence(case: &Case) -> Sequence {
    let prompt = codec().0.encode("the end");
    let end_tokens = BTreeMap::from([(END, EndToken::Primary), (SECOND_END, EndToken::Additional)]);
    let rules = FinishRules {
        min_tokens: 0,
        max_tokens: case.max_tokens,
        max_model_len: prompt.len() + case.room,
        stop_token_ids: case.stop_token_ids.clone(),
        end_tokens: Arc::new(end_tokens),
        ignore_eos: case.ignore_eos,
        stop: StopStrings::new(case.stop.clone(), case.include),
        include_stop_str_in_output: case.include,
    };
    let text = TextRules { skip_special_tokens: case.skip_special_tokens, spaces_between_special_tokens: true };
    Sequence::new(prompt, rules, codec().1.clone(), text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn tokens_in_any_grouping_come_to_the_naive_text_and_finish(case in case()) {
        let (text, finish, count) = naive(&case);
        let mut sequence = sequence(&case);
        let mut taken = String::new();
        let mut committed = 0;
        for (token, border) in case.tokens.iter().zip(&case.borders) {
            prop_assert!(sequence.room() > 0);
            let scored = Scored { token: *token, logprob: -1.0, rank: None, top: Vec::new() };
            let over = sequence.commit(&scored).unwrap().is_some();
            committed += 1;
            if *border || over {
                taken.push_str(&sequence.take_text());
                prop_assert!(finish.is_none() || text.starts_with(&taken), "{:?} was shown of {:?}", taken, text);
            }
            if over {
                break;
            }
        }
        prop_assert_eq!((sequence.finish().cloned(), committed), (finish.clone(), count));
        if finish.is_some() {
            prop_assert_eq!(taken, text);
            prop_assert_eq!(sequence.room(), 0);
        }
    }
}
