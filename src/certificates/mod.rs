//! Certificates and private keys in files: what they say, what is wrong with them, and the command that mends it.

mod chain;
mod check;
mod content;
mod facts;
mod key;
mod remedy;
#[cfg(test)]
mod tests;
mod trial;
mod validity;

pub(crate) use check::{Finding, Purpose, check_chain, check_key, check_trusted, shared_names};
pub(crate) use content::{certificates, private_key};
pub(crate) use facts::Facts;
pub(crate) use trial::TrialCertificate;
pub(crate) use validity::{Validity, ValidityFault};
