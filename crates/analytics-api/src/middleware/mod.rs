//! What happens around every handler, from the outside in: the request gets its id
//! ([`request_id`]) and its place in a trace, is logged and measured when it is answered ([`observe`]), an error gets its body
//! ([`problems`]), a caller that is gone is noticed ([`connection`]), and what is larger than it may be is refused
//! ([`limits`]).

pub(crate) mod connection;
pub(crate) mod limits;
pub(crate) mod observe;
pub(crate) mod problems;
pub(crate) mod request_id;
mod trace_context;
