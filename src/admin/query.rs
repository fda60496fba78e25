//! The query of a request, as `a=b&c=d`.

use super::error::ApiError;
use super::fields::Fields;

/// Names that are not `known`, or come twice, are errors of the fields.
pub(super) fn parse(text: Option<&str>, known: &[&'static str]) -> Result<Fields, ApiError> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(name)?, decode(value)?.into()))
    };
    let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(pair);
    let fields = pairs.collect::<Option<_>>();
    let fields = fields.ok_or_else(|| ApiError::Malformed("The query has a broken escape, or is not UTF-8.".into()))?;
    Ok(Fields::new(fields, known))
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
    use super::super::fields::{PAGE_SIZE, TEXT};
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let known = ["account", "name", "plan"];
        let mut query = parse(Some("account=ACME+Corp%20%231&&name=%C3%A9&plan"), &known).unwrap();
        assert_eq!(query.get("account", &TEXT).as_deref(), Some("ACME Corp #1"));
        assert_eq!(query.get("name", &TEXT).as_deref(), Some("é"));
        assert_eq!(query.get("plan", &TEXT).as_deref(), Some(""));
        assert_eq!(query.get("plan", &TEXT), None);
        assert!(query.finish().is_ok());
        assert!(parse(None, &[]).unwrap().finish().is_ok());
        for broken in ["name=%", "name=%4", "name=%zz", "name=%ff", "%e2%82=1", "name=%+1"] {
            assert!(matches!(parse(Some(broken), &["name"]), Err(ApiError::Malformed(_))), "{broken}");
        }
    }

    #[test]
    fn every_error_is_reported() {
        let mut query = parse(Some("acount=a&name=a&name=b&limit=+5"), &["account", "name", "limit"]).unwrap();
        assert_eq!(query.get("limit", &PAGE_SIZE), None);
        let errors = format!("{:?}", query.finish().unwrap_err());
        for part in ["did you mean", "only once", "from 1 to 200"] {
            assert!(errors.contains(part), "{errors}");
        }
        for (text, limit) in
            [("limit=1", Some(1)), ("limit=200", Some(200)), ("limit=0", None), ("limit=201", None), ("limit=", None)]
        {
            let mut query = parse(Some(text), &["limit"]).unwrap();
            let read = query.get("limit", &PAGE_SIZE);
            assert_eq!((query.finish().is_ok(), read), (limit.is_some(), limit), "{text}");
        }
    }
}
