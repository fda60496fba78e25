//! What stands behind the `?` of a request: names that the endpoint knows, each once.

use super::faults::Faults;
use super::problem::Problem;

/// The parameters of a request.
#[derive(Debug, Default)]
pub(super) struct Query {
    given: Vec<(String, String)>,
    faults: Faults,
}

impl Query {
    /// Reads `a=b&c=d`; a name that is not `known`, or comes twice, is a fault.
    pub(super) fn parse(text: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut query = Self::default();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                return Err(Problem::Malformed("The query holds a broken escape, or is not UTF-8.".to_owned()));
            };
            if !known.contains(&name.as_str()) {
                query.faults.unknown(&name, known);
            } else if query.given.iter().any(|(other, _)| *other == name) {
                query.faults.add(&name, format!("{name} may be given only once"));
            } else {
                query.given.push((name, value));
            }
        }
        Ok(query)
    }

    /// The text of a parameter, if it is there.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let at = self.given.iter().position(|(given, _)| given == name)?;
        Some(self.given.swap_remove(at).1)
    }

    /// A parameter as `read` understands it; a fault that says what it `must` be, if it doesn't.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        must: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let read = read(&text);
        if read.is_none() {
            self.faults.add(name, format!("{name} must be {must}"));
        }
        read
    }

    /// How many items a page is to have.
    pub(super) fn limit(&mut self) -> usize {
        let most = super::MAX_PAGE;
        let must = format!("a whole number from 1 to {most}");
        let limit = self.read("limit", &must, |text| whole(text).filter(|limit| (1..=most as u64).contains(limit)));
        limit.map_or(super::PAGE, |limit| limit as usize)
    }

    /// Whether nothing is wrong with any parameter; to be asked when all are read.
    pub(super) fn done(self) -> Result<(), Problem> {
        self.faults.done()
    }
}

/// Digits as a number, without a sign.
pub(super) fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `+` and `%XX` decoded; `None` if that is no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high << 4 | low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let mut query =
            Query::parse(Some("account=ACME+Corp%20%231&&name=%C3%A9&plan"), &["account", "name", "plan"]).unwrap();
        assert_eq!(query.text("account").as_deref(), Some("ACME Corp #1"));
        assert_eq!(query.text("name").as_deref(), Some("é"));
        assert_eq!(query.text("plan").as_deref(), Some(""));
        assert_eq!(query.text("plan"), None);
        assert!(query.done().is_ok());
        assert!(Query::parse(None, &[]).unwrap().done().is_ok());
        for broken in ["name=%", "name=%4", "name=%zz", "name=%ff", "%e2%82=1", "name=%+1"] {
            assert!(matches!(Query::parse(Some(broken), &["name"]), Err(Problem::Malformed(_))), "{broken}");
        }
    }

    #[test]
    fn every_fault_is_told() {
        let mut query = Query::parse(Some("acount=a&name=a&name=b&limit=+5"), &["account", "name", "limit"]).unwrap();
        assert_eq!(query.limit(), super::super::PAGE);
        let Err(Problem::Invalid(faults)) = query.done() else { panic!("no faults") };
        let told = format!("{faults:?}");
        assert!(told.contains("did you mean") && told.contains("only once") && told.contains("from 1 to"), "{told}");
        for (text, limit) in
            [("limit=1", Some(1)), ("limit=200", Some(200)), ("limit=0", None), ("limit=201", None), ("limit=", None)]
        {
            let mut query = Query::parse(Some(text), &["limit"]).unwrap();
            let read = query.limit();
            assert_eq!(query.done().is_ok().then_some(read), limit, "{text}");
        }
    }
}
