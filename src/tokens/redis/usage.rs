//! The use of tokens, beside their records.

use super::RedisTokens;
use crate::store::StoreError;
use crate::tokens::usage::Use;

/// Adds to the use of a token, unless its record is gone. Its version stays as it is.
pub(super) const ADD_USE: &str = r"
if redis.call('HEXISTS', KEYS[1], 'version') == 0 then return 0 end
redis.call('HINCRBY', KEYS[1], 'requests', ARGV[1])
local used = redis.call('HGET', KEYS[1], 'used')
if not used or tonumber(used) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'used', ARGV[2]) end
return 1
";

impl RedisTokens {
    /// # Errors
    /// [`StoreError`]; at a deadline it may have been added all the same.
    pub(in crate::tokens) async fn add_use(&self, id: &str, new: Use) -> Result<(), StoreError> {
        let (mut requests, mut last) = (itoa::Buffer::new(), itoa::Buffer::new());
        let args = [requests.format(new.requests).as_bytes(), last.format(new.last.unix()).as_bytes()];
        self.redis.run(&self.scripts.add_use, &[self.key(id).as_bytes()], &args).await.map(drop)
    }
}
