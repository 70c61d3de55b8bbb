//! Patterns, compiled for evaluation: the fields that have rules as a tree of keys, and the
//! alternatives as sets of fields.
//!
//! A record's field is known by its keys joined with dots, so keys are cut at their dots, here and
//! in records: `{"a": {"b": …}}` and `{"a.b": …}` lead to the same node.

use super::bits::Bits;
use super::budget::Weight;
use super::pattern::Pattern;
use super::rule::Rule;
use super::rules::Rules;
use super::scan::Scalar;

/// What a record's envelope tells a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metadata {
    PartitionKey,
    SequenceNumber,
    ApproximateArrivalTimestamp,
    KinesisSchemaVersion,
}

impl Metadata {
    /// The keys, as a record has them.
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("partitionKey", Self::PartitionKey),
        ("sequenceNumber", Self::SequenceNumber),
        (
            "approximateArrivalTimestamp",
            Self::ApproximateArrivalTimestamp,
        ),
        ("kinesisSchemaVersion", Self::KinesisSchemaVersion),
    ];

    fn named(path: &str) -> Option<Self> {
        let named = Self::ALL.iter().find(|(name, _)| *name == path);
        named.map(|(_, metadata)| *metadata)
    }
}

/// Some patterns, evaluated together in one pass over a payload.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) fields: Vec<CompiledField>,
    /// Fields of the envelope.
    pub(super) metadata: Vec<(Metadata, usize)>,
    /// Fields that match a record in which they are not there.
    pub(super) may_lack: Bits,
    /// Fields of the envelope, as a set.
    pub(super) of_metadata: Bits,
    /// The payload's keys: node 0 is the payload itself.
    pub(super) nodes: Vec<Node>,
    pub(super) alternatives: Vec<Alternative>,
}

/// A field and its rules.
#[derive(Debug)]
pub(super) struct CompiledField {
    pub(super) path: String,
    pub(super) text: String,
    pub(super) rules: Rules,
}

/// Fields that make a record match when all of them do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alternative {
    /// Which of the criteria's patterns it belongs to.
    pub(super) pattern: usize,
    pub(super) fields: Bits,
    /// Whether the pattern is about the payload, which then has to be JSON.
    pub(super) reads_data: bool,
}

/// A place in the payload that leads to fields with rules.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Sorted by segment.
    pub(super) children: Vec<Child>,
    /// Fields right here.
    pub(super) fields: Vec<usize>,
    /// Fields here and below.
    pub(super) below: Bits,
    /// Places with fields, here and below.
    pub(super) places: usize,
}

/// A key's piece between dots, and where it leads.
#[derive(Debug)]
pub(super) struct Child {
    segment: Box<str>,
    pub(super) node: usize,
}

/// Where a key of a record leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To nothing that has a rule.
    Nowhere,
    /// To a node's child.
    Child(usize),
    /// Perhaps to a node further down, as the key has dots.
    Dotted,
}

/// Children up to which one after the other is faster than halving.
const FEW: usize = 8;

impl Node {
    /// Where a key leads from here.
    #[inline]
    pub(super) fn step(&self, key: &[u8]) -> Step {
        if self.children.len() > FEW {
            return self.step_among_many(key);
        }
        for (number, child) in self.children.iter().enumerate() {
            let segment = child.segment.as_bytes();
            if key.len() == segment.len() {
                // Most keys differ in their first byte, which is cheaper than a call.
                if key.first() == segment.first() && key == segment {
                    return Step::Child(number);
                }
            } else if key.get(segment.len()) == Some(&b'.') && key.starts_with(segment) {
                return Step::Dotted;
            }
        }
        Step::Nowhere
    }

    fn step_among_many(&self, key: &[u8]) -> Step {
        let dot = key.iter().position(|byte| *byte == b'.');
        match self.find(&key[..dot.unwrap_or(key.len())]) {
            Some(number) if dot.is_none() => Step::Child(number),
            Some(_) => Step::Dotted,
            None => Step::Nowhere,
        }
    }

    fn find(&self, segment: &[u8]) -> Option<usize> {
        self.children
            .binary_search_by(|child| child.segment.as_bytes().cmp(segment))
            .ok()
    }
}

impl CompiledField {
    /// Whether a value is what the field must be.
    pub(super) fn holds(&self, value: &Scalar<'_>) -> bool {
        self.rules.hold(value)
    }

    /// What it takes to look at a value.
    pub(super) fn weight(&self) -> Weight {
        self.rules.weight()
    }
}

impl Program {
    /// Compiles patterns, which keep their order. Those whose fields do not fit into one program
    /// go into further ones.
    pub(super) fn compile(patterns: &[Pattern]) -> Vec<Self> {
        let mut programs: Vec<Self> = Vec::new();
        for (number, pattern) in patterns.iter().enumerate() {
            let fits =
                |program: &&mut Self| program.fields.len() + pattern.fields.len() <= Bits::CAPACITY;
            match programs.last_mut().filter(fits) {
                Some(program) => program.add(number, pattern),
                None => {
                    let mut program = Self {
                        nodes: vec![Node::default()],
                        ..Self::default()
                    };
                    program.add(number, pattern);
                    programs.push(program);
                }
            }
        }
        for program in &mut programs {
            program.sum_up();
        }
        programs
    }

    /// The node that a key with dots leads to.
    pub(super) fn walk(&self, from: usize, key: &str) -> Option<usize> {
        key.split('.').try_fold(from, |node, segment| {
            let node = &self.nodes[node];
            node.find(segment.as_bytes())
                .map(|number| node.children[number].node)
        })
    }

    fn add(&mut self, number: usize, pattern: &Pattern) {
        let first = self.fields.len();
        for field in &pattern.fields {
            let index = self.fields.len();
            if let Some(path) = field.path.strip_prefix("data.") {
                let node = self.node(path);
                self.nodes[node].fields.push(index);
            } else if let Some(metadata) = Metadata::named(&field.path) {
                self.metadata.push((metadata, index));
                self.of_metadata.insert(index);
            }
            if field.rules.iter().any(|rule| matches!(rule, Rule::Absent)) {
                self.may_lack.insert(index);
            }
            self.fields.push(CompiledField {
                path: field.path.clone(),
                text: field.text.clone(),
                rules: field.rules.clone().into(),
            });
        }
        let alternatives = pattern.alternatives.iter().map(|fields| Alternative {
            pattern: number,
            fields: fields.iter().map(|field| first + field).collect(),
            reads_data: pattern.reads_data,
        });
        self.alternatives.extend(alternatives);
    }

    /// The node for a path, made if it is not there.
    fn node(&mut self, path: &str) -> usize {
        path.split('.').fold(0, |at, segment| {
            let made = self.nodes.len();
            let children = &mut self.nodes[at].children;
            match children.binary_search_by(|child| (*child.segment).cmp(segment)) {
                Ok(number) => children[number].node,
                Err(number) => {
                    let segment = segment.into();
                    children.insert(
                        number,
                        Child {
                            segment,
                            node: made,
                        },
                    );
                    self.nodes.push(Node::default());
                    made
                }
            }
        })
    }

    /// Sums up for each node what is below it. A child comes behind its parent.
    fn sum_up(&mut self) {
        for at in (0..self.nodes.len()).rev() {
            let node = &self.nodes[at];
            let mut below: Bits = node.fields.iter().copied().collect();
            let mut places = usize::from(!node.fields.is_empty());
            for child in &node.children {
                below |= self.nodes[child.node].below;
                places += self.nodes[child.node].places;
            }
            let node = &mut self.nodes[at];
            (node.below, node.places) = (below, places);
        }
    }
}
