//! Access control (ACL): what the brokers let this user do with a topic, asked for without doing it.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fmt;

use rdkafka::bindings::{
    rd_kafka_AclOperation_t, rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new,
    rd_kafka_AdminOptions_set_include_authorized_operations, rd_kafka_AdminOptions_set_request_timeout,
    rd_kafka_AdminOptions_t, rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics,
    rd_kafka_TopicCollection_destroy, rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicCollection_t,
    rd_kafka_TopicDescription_authorized_operations, rd_kafka_TopicDescription_error, rd_kafka_admin_op_t,
    rd_kafka_error_code, rd_kafka_error_destroy, rd_kafka_error_string, rd_kafka_event_DescribeTopics_result,
    rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_error_string, rd_kafka_event_t,
    rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t, rd_kafka_resp_err_t, rd_kafka_t,
};
use rdkafka::consumer::Consumer as _;

use super::client::{ASK_MAX, Consumer};

/// Something that a user may do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Fetch its records.
    Read,
    /// Append to it.
    Write,
    /// Delete it.
    Delete,
    /// Know its settings.
    DescribeConfigs,
}

impl Right {
    fn operation(self) -> rd_kafka_AclOperation_t {
        match self {
            Right::Read => rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ,
            Right::Write => rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE,
            Right::Delete => rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DELETE,
            Right::DescribeConfigs => rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Returns those of `wanted` that this user does not have on `topic`; none if there is no such topic.
///
/// # Errors
///
/// The brokers' reason if they do not say: who may not even describe a topic is told nothing of it.
pub(super) fn lacking(client: &Consumer, topic: &str, wanted: &[Right]) -> Result<Vec<Right>, String> {
    let Some(allowed) = Question::new(client.client().native_ptr(), topic)?.ask()? else { return Ok(vec![]) };
    Ok(wanted.iter().copied().filter(|right| !allowed.contains(&right.operation())).collect())
}

const FINE: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// What the client library takes to ask, freed when this is dropped.
struct Question {
    client: *mut rd_kafka_t,
    topics: *mut rd_kafka_TopicCollection_t,
    options: *mut rd_kafka_AdminOptions_t,
    queue: *mut rd_kafka_queue_t,
}

/// An answer, freed when this is dropped.
struct Event(*mut rd_kafka_event_t);

impl Question {
    fn new(client: *mut rd_kafka_t, topic: &str) -> Result<Self, String> {
        let name = CString::new(topic).map_err(|error| error.to_string())?;
        let mut names = [name.as_ptr()];
        // SAFETY: the client lives on while its borrower asks; the library copies the name.
        let question = unsafe {
            Self {
                client,
                topics: rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
                options: rd_kafka_AdminOptions_new(client, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
                queue: rd_kafka_queue_new(client),
            }
        };
        let ms = i32::try_from(ASK_MAX.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the options were just made, for this kind of question; an error is freed once.
        unsafe {
            rd_kafka_AdminOptions_set_request_timeout(question.options, ms, std::ptr::null_mut(), 0);
            let refused = rd_kafka_AdminOptions_set_include_authorized_operations(question.options, 1);
            if !refused.is_null() {
                let why = text(rd_kafka_error_string(refused));
                rd_kafka_error_destroy(refused);
                return Err(why);
            }
        }
        Ok(question)
    }

    fn ask(&self) -> Result<Option<Vec<rd_kafka_AclOperation_t>>, String> {
        let ms = i32::try_from(ASK_MAX.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: what the question is made of lives as long as this; the answer is one of descriptions if it is no error,
        // and what lies in it as long as it.
        unsafe {
            rd_kafka_DescribeTopics(self.client, self.topics, self.options, self.queue);
            let event = Event(rd_kafka_queue_poll(self.queue, ms.saturating_add(1_000)));
            if event.0.is_null() {
                return Err("no broker answered in time".to_owned());
            }
            if rd_kafka_event_error(event.0) != FINE {
                return Err(text(rd_kafka_event_error_string(event.0)));
            }
            let result = rd_kafka_event_DescribeTopics_result(event.0);
            if result.is_null() {
                return Err("the brokers answered something else".to_owned());
            }
            let mut count = 0;
            let topics = rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if count == 0 {
                return Ok(None);
            }
            let topic = *topics;
            let error = rd_kafka_TopicDescription_error(topic);
            let code = if error.is_null() { FINE } else { rd_kafka_error_code(error) };
            match code {
                FINE => {}
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Ok(None),
                _ => return Err(text(rd_kafka_error_string(error))),
            }
            let operations = rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
            if operations.is_null() {
                return Err("the brokers do not tell rights".to_owned());
            }
            Ok(Some(std::slice::from_raw_parts(operations, count).to_vec()))
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // SAFETY: each was made by the library for this and is freed once.
        unsafe {
            rd_kafka_queue_destroy(self.queue);
            rd_kafka_AdminOptions_destroy(self.options);
            rd_kafka_TopicCollection_destroy(self.topics);
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it was polled from a queue and is freed once.
            unsafe { rd_kafka_event_destroy(self.0) };
        }
    }
}

/// Returns the library's words.
///
/// # Safety
///
/// `words` is null or a C string.
unsafe fn text(words: *const std::ffi::c_char) -> String {
    if words.is_null() {
        return "no reason was given".to_owned();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
}
