//! What this node answers about membership.

use std::sync::Arc;

use proto::peer::membership as pb;
use proto::peer::membership::membership_server::{self, MembershipServer};
use ring::Document;
use tonic::{Code, Request, Response, Status};

use super::{AdoptError, Cluster, calls};
use crate::grpc::MESSAGE_BYTES_MAX;

/// Answers about membership.
pub struct Membership(Arc<Cluster>);

impl Membership {
    /// The service for the peer port.
    pub fn server(cluster: Arc<Cluster>) -> MembershipServer<Self> {
        MembershipServer::new(Self(cluster)).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl membership_server::Membership for Membership {
    async fn hello(&self, request: Request<pb::HelloRequest>) -> Answer<pb::HelloResponse> {
        let asked = request.into_inner();
        let store = calls::id(&asked.store)?;
        let noted = self.0.note_incarnation(store, asked.previous_incarnation).await;
        let highest_incarnation = noted.map_err(|e| Status::unavailable(e.to_string()))?;
        let view = self.0.view();
        Ok(Response::new(pb::HelloResponse {
            store: self.0.me().to_string(),
            cluster: view.document().cluster.to_string(),
            epoch: view.epoch(),
            highest_incarnation,
            incarnation: self.0.identity.incarnation,
        }))
    }

    async fn document(&self, _: Request<pb::DocumentRequest>) -> Answer<pb::DocumentResponse> {
        let view = self.0.view();
        let document = view.document().encode().into();
        Ok(Response::new(pb::DocumentResponse { epoch: view.epoch(), document }))
    }

    async fn adopt(&self, request: Request<pb::AdoptRequest>) -> Answer<pb::AdoptResponse> {
        let refuse = |error: AdoptError| match error {
            AdoptError::Storage(error) => Status::unavailable(error.to_string()),
            error => Status::new(Code::FailedPrecondition, error.to_string()),
        };
        let document = Document::decode(&request.into_inner().document).map_err(|e| refuse(e.into()))?;
        let epoch = self.0.adopt(document).await.map_err(refuse)?;
        Ok(Response::new(pb::AdoptResponse { epoch }))
    }

    async fn reach(&self, request: Request<pb::ReachRequest>) -> Answer<pb::ReachResponse> {
        let asked = request.into_inner();
        let store = calls::id(&asked.store)?;
        let hello = self.0.calls.hello(&asked.address, self.0.me(), self.0.identity.previous).await;
        let problem = match hello {
            Ok(hello) if hello.store == store => String::new(),
            Ok(hello) => format!("store {} is there", hello.store),
            Err(status) => status.message().to_owned(),
        };
        Ok(Response::new(pb::ReachResponse { problem }))
    }
}
