//! Which outputs of a model are served: `--output` and `--raw`.

use thiserror::Error;

use super::{Form, Step};

/// What of a model is served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Which outputs; nothing is fine where there is only one.
    pub output: Option<Output>,
    /// The margin instead of the score: what the model says before the last transform.
    pub raw: bool,
}

/// Which of several outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// All of them, in order.
    All,
    /// The one with this index, from 0.
    Index(usize),
    /// The one with this name.
    Name(String),
}

impl std::str::FromStr for Output {
    type Err = std::convert::Infallible;

    /// Digits are always an index, `all` is all, anything else is a name.
    fn from_str(text: &str) -> Result<Output, Self::Err> {
        Ok(match text.parse() {
            Ok(index) if text.bytes().all(|byte| byte.is_ascii_digit()) => Output::Index(index),
            _ if text == "all" => Output::All,
            _ => Output::Name(text.to_owned()),
        })
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Output::All => formatter.write_str("all"),
            Output::Index(index) => index.fmt(formatter),
            Output::Name(name) => name.fmt(formatter),
        }
    }
}

/// Why no output is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// There are several, and nothing was said.
    #[error("the model has {count} outputs ({listed}): choose one with --output N or --output NAME, or --output all")]
    Several {
        /// How many.
        count: usize,
        /// Their indices and names.
        listed: String,
    },
    /// There is none of that index or name.
    #[error("the model has no output {output}: it has {listed}")]
    Unknown {
        /// What was asked for.
        output: Output,
        /// The indices and names of what there is.
        listed: String,
    },
}

impl Choice {
    /// Which column of several, of these names, is served alone; none if all are, or if there is but one.
    ///
    /// # Errors
    /// As [`Form::choose`].
    pub(crate) fn column(&self, names: &[String]) -> Result<Option<usize>, ChoiceError> {
        let unknown = |output: &Output| ChoiceError::Unknown { output: output.clone(), listed: listed(names) };
        let column = match &self.output {
            Some(Output::All) => return Ok(None),
            None if names.len() == 1 => return Ok(None),
            None => return Err(ChoiceError::Several { count: names.len(), listed: listed(names) }),
            Some(output @ Output::Index(index)) if *index >= names.len() => return Err(unknown(output)),
            Some(Output::Index(index)) => *index,
            Some(output @ Output::Name(wanted)) => {
                names.iter().position(|name| name == wanted).ok_or_else(|| unknown(output))?
            }
        };
        Ok((names.len() > 1).then_some(column))
    }
}

impl Form {
    /// Makes the form's score what is chosen, margin and all.
    ///
    /// # Errors
    /// If there are several outputs and none is chosen, or the chosen one is not there.
    ///
    /// # Panics
    /// If the form has not passed [`Form::check`].
    pub fn choose(&mut self, choice: &Choice) -> Result<(), ChoiceError> {
        if choice.raw {
            let widths = self.widths().expect("the form has been checked");
            if widths[self.margin] != self.output_names.len() {
                self.output_names = (0..widths[self.margin]).map(|index| index.to_string()).collect();
            }
            self.score = self.margin;
        }
        if let Some(column) = choice.column(&self.output_names)? {
            self.output_names = vec![self.output_names[column].clone()];
            self.steps.push(Step::Select { input: self.score, columns: vec![column] });
            self.score = self.steps.len();
        }
        Ok(())
    }
}

/// The outputs as a list for people: `0 "setosa", 1 "versicolor"`; only so many of them.
fn listed(names: &[String]) -> String {
    const SHOWN_MAX: usize = 20;
    let shown = names
        .iter()
        .enumerate()
        .take(SHOWN_MAX)
        .map(|(index, name)| if *name == index.to_string() { name.clone() } else { format!("{index} {name:?}") });
    let mut listed = shown.collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX {
        listed += &format!(", … {} more", names.len() - SHOWN_MAX);
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::super::Transform;
    use super::*;

    fn of_three() -> Form {
        Form {
            kind: "test".to_owned(),
            feature_dim: 3,
            feature_names: Vec::new(),
            steps: vec![Step::Apply { input: 0, transform: Transform::Softmax }],
            margin: 0,
            score: 1,
            output_names: ["10", "b", "c"].map(str::to_owned).to_vec(),
        }
    }

    fn chosen(form: Form, output: Option<&str>, raw: bool) -> Result<Form, String> {
        let output = output.map(|output| output.parse().expect("infallible"));
        let mut form = form;
        form.choose(&Choice { output, raw }).map(|()| form).map_err(|error| error.to_string())
    }

    #[test]
    fn one_of_several_is_chosen_by_index_or_name() {
        for (output, name, column) in [("0", "10", 0), ("1", "b", 1), ("c", "c", 2)] {
            let form = chosen(of_three(), Some(output), false).expect(output);
            assert_eq!(form.check(), Ok(()));
            assert_eq!(form.output_names, [name]);
            assert_eq!(form.steps[form.score - 1], Step::Select { input: 1, columns: vec![column] });
        }
        assert_eq!(chosen(of_three(), Some("all"), false), Ok(of_three()));
        let raw = chosen(of_three(), Some("all"), true).expect("raw");
        assert_eq!((raw.score, raw.output_names.len()), (0, 3));
    }

    #[test]
    fn what_is_not_there_is_refused_with_what_is() {
        let listed = r#"0 "10", 1 "b", 2 "c""#;
        for (output, reason) in [(None, "3 outputs"), (Some("10"), "no output 10"), (Some("d"), "no output d")] {
            let error = chosen(of_three(), output, false).expect_err(reason);
            assert!(error.contains(reason) && error.contains(listed), "{error}");
        }
    }

    #[test]
    fn one_output_needs_no_choice() {
        let mut one = of_three();
        one.steps.push(Step::Apply { input: 1, transform: Transform::ArgMax });
        (one.score, one.output_names) = (2, vec!["class".to_owned()]);
        for output in [None, Some("0"), Some("class"), Some("all")] {
            assert_eq!(chosen(one.clone(), output, false), Ok(one.clone()));
        }
        assert_eq!(chosen(one, Some("all"), true).map(|form| form.output_names.len()), Ok(3));
    }
}
