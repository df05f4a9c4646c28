//! What one step of the engine computes, as vLLM's scheduler decides it (`vllm/v1/core/sched/scheduler.py`): a token for
//! each sequence that runs, and then as much of the prompts that wait as the budget leaves.

use std::collections::VecDeque;

use super::cost_model::StepLoad;

/// A sequence of the engine's: its request, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The request.
    pub seat: u64,
    /// The sequence's place in it.
    pub index: usize,
}

/// A sequence under way.
#[derive(Debug, Clone)]
struct Row {
    key: Key,
    /// Tokens known.
    known: usize,
    /// Of these, computed.
    computed: usize,
    /// Tokens it may still get.
    most: usize,
}

/// The sequences that an engine has, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    running: Vec<Row>,
    waiting: VecDeque<Row>,
}

/// How much a step may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Tokens that it computes at most.
    pub tokens: usize,
    /// Sequences that run at most; those that run already do so in any case.
    pub sequences: usize,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepPlan {
    /// The sequences that get a token, in the order in which they came.
    pub sampled: Vec<Key>,
    /// What it computes.
    pub load: StepLoad,
}

/// What the plan needs to know of the prompts, and tells of them.
pub trait Prompts {
    /// Tokens of a prompt that the prefix cache serves; asked once, when its turn has come.
    fn cached(&mut self, key: Key) -> usize;

    /// The first `upto` tokens of the prompt of `key` will have been computed after this step.
    fn computed(&mut self, key: Key, upto: usize);
}

impl Queue {
    /// A sequence comes, with a prompt of `prompt` tokens, for at most `most` tokens.
    pub fn join(&mut self, key: Key, prompt: usize, most: usize) {
        self.waiting.push_back(Row { key, known: prompt, computed: 0, most });
    }

    /// Sequences go.
    pub fn leave(&mut self, gone: impl Fn(Key) -> bool) {
        self.running.retain(|row| !gone(row.key));
        self.waiting.retain(|row| !gone(row.key));
    }

    /// Sequences that take part in steps.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences whose turn has not come.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next step; without any load where nothing can be done.
    pub fn plan(&mut self, limits: Limits, prompts: &mut impl Prompts) -> StepPlan {
        self.running.retain(|row| row.most > 0);
        let mut plan = StepPlan::default();
        let mut budget = limits.tokens;
        for row in &mut self.running {
            compute(row, &mut budget, &mut plan, prompts);
        }
        while budget > 0 && self.running.len() < limits.sequences {
            let Some(mut row) = self.waiting.pop_front() else { break };
            row.computed = prompts.cached(row.key);
            compute(&mut row, &mut budget, &mut plan, prompts);
            self.running.push(row);
        }
        plan
    }
}

/// Computes what there is to compute of `row`, as far as the budget goes.
fn compute(row: &mut Row, budget: &mut usize, plan: &mut StepPlan, prompts: &mut impl Prompts) {
    let now = (row.known - row.computed).min(*budget);
    if now == 0 {
        return;
    }
    *budget -= now;
    row.computed += now;
    prompts.computed(row.key, row.computed);
    if row.computed < row.known {
        plan.load.prefilled += now;
        return;
    }
    plan.load.prefilled += now - 1;
    plan.load.sampled += 1;
    plan.sampled.push(row.key);
    row.known += 1;
    row.most -= 1;
}
