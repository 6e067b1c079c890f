//! How long a run takes.

/// The length of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 45 minutes on an otherwise idle machine.
    Full,
    /// 12 minutes: fewer rounds, fewer purchases, smaller ledgers.
    Quick,
    /// Shows that everything runs. Its numbers mean nothing.
    Short,
}

impl Mode {
    /// Reads `--quick` or `--short` among the arguments.
    pub fn read(arguments: &[String]) -> Self {
        let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
        match (given("--short"), given("--quick")) {
            (true, _) => Self::Short,
            (_, true) => Self::Quick,
            _ => Self::Full,
        }
    }

    /// Returns one number for each mode.
    pub fn choose<T>(self, full: T, quick: T, short: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Short => short,
        }
    }

    /// Returns how often each client is measured.
    pub fn rounds(self) -> usize {
        self.choose(7, 5, 1)
    }

    /// Returns the purchases of one measurement that makes `full` purchases in a full run.
    pub fn count(self, full: usize) -> usize {
        (full / self.choose(1, 2, 50)).max(20)
    }
}
