//! The use of tokens, beside their records.

use super::records::RedisTokens;
use crate::store::StoreError;
use crate::tokens::stored::NewUsage;

impl RedisTokens {
    /// # Errors
    /// [`StoreError`]; at a deadline it may have been added all the same.
    pub(in crate::tokens) async fn add_usage(&self, id: &str, new: NewUsage) -> Result<(), StoreError> {
        let (mut requests, mut last) = (itoa::Buffer::new(), itoa::Buffer::new());
        let args = [requests.format(new.requests).as_bytes(), last.format(new.last.unix()).as_bytes()];
        self.redis.run(&self.scripts.add_usage, &[self.key(id).as_bytes()], &args).await.map(drop)
    }
}
