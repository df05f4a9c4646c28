//! Stop strings against a search of the whole text after each character.

use proptest::collection::vec;
use proptest::prelude::*;
use sidedraft::text::StopStrings;

fn strings() -> impl Strategy<Value = Vec<String>> {
    vec("[abé]{1,4}", 0..4)
}

/// The match that ends earliest: among those that end together the one listed first.
fn searched(text: &str, stops: &[String]) -> Option<(usize, String)> {
    let ends = |end: usize| stops.iter().find(move |stop| text[..end].ends_with(stop.as_str()));
    (0..=text.len()).filter(|end| text.is_char_boundary(*end)).find_map(|end| Some((end, ends(end)?.clone())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn pieces_find_what_the_whole_text_has_and_show_nothing_that_is_cut(
        pieces in vec("[abé]{0,5}", 0..8), stops in strings(), include in any::<bool>(),
    ) {
        let strings = StopStrings::new(stops.clone(), include);
        let mut text = String::new();
        let mut shown = 0;
        for piece in pieces {
            let seen = text.len();
            text.push_str(&piece);
            let expected = searched(&text, &stops);
            let found = strings.find(&text, seen);
            prop_assert_eq!(
                found.as_ref().map(|found| (found.cut, found.string.clone())),
                expected.map(|(end, stop)| (if include { end } else { end - stop.len() }, stop))
            );
            if let Some(found) = found {
                prop_assert!(shown <= found.cut, "{} bytes were shown of {:?}", shown, text);
                break;
            }
            let safe = strings.safe_length(&text);
            prop_assert!(text.is_char_boundary(safe) && safe <= text.len());
            // Text can only be added.
            shown = shown.max(safe);
        }
    }
}
