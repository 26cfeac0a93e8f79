//! What this node answers about membership.

use std::sync::Arc;

use proto::peer::membership as pb;
use proto::peer::membership::membership_server::{self, MembershipServer};
use ring::Document;
use tonic::{Code, Request, Response, Status};

use super::rollback::Age;
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
        let age = Age { incarnation: asked.previous_incarnation, watermark: asked.watermark };
        // Anybody may say hello: nothing is remembered of stores that neither the ring nor gossip knows.
        let is_known = self.0.view().document().members.contains_key(&store)
            || self.0.members().seen.contains_key(&store);
        let remembered = match is_known {
            true => self.0.note_age(store, age).await.map_err(|e| Status::unavailable(e.to_string()))?,
            false => Age::default(),
        };
        let view = self.0.view();
        Ok(Response::new(pb::HelloResponse {
            store: self.0.me().to_string(),
            cluster: view.document().cluster.to_string(),
            epoch: view.epoch(),
            highest_incarnation: remembered.incarnation,
            highest_watermark: remembered.watermark,
            incarnation: self.0.identity.incarnation,
            now_ms: self.0.clock.now_ms(),
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
        // Before a node counts itself as ready: its process is another than the one that fell silent there.
        self.0.peers.is_back(&asked.address);
        let hello = self.0.calls.hello(&asked.address, self.0.me(), self.0.age_before()).await;
        let problem = match hello {
            Ok(hello) if hello.store == store => String::new(),
            Ok(hello) => format!("store {} is there", hello.store),
            Err(status) => status.message().to_owned(),
        };
        Ok(Response::new(pb::ReachResponse { problem }))
    }

    async fn gossip(&self, request: Request<pb::GossipRequest>) -> Answer<pb::GossipResponse> {
        let gossip = self.0.gossip.get().ok_or_else(|| Status::unavailable("still starting"))?;
        match gossip.receive(&request.into_inner().frame) {
            Ok(()) => Ok(Response::new(pb::GossipResponse {})),
            Err(refused) => Err(Status::failed_precondition(refused.to_string())),
        }
    }

    async fn vouch(&self, request: Request<pb::VouchRequest>) -> Answer<pb::VouchResponse> {
        let asked = request.into_inner().epoch;
        let held = self.0.view().epoch();
        if held < asked {
            return Err(Status::unavailable(format!("epoch {held} holds here, and {asked} there")));
        }
        let vouched = self.0.vouches();
        let catalogs = vouched.catalogs.into_iter();
        Ok(Response::new(pb::VouchResponse {
            placements: vouched.placements.into_iter().collect(),
            catalogs: catalogs.map(|(tenant, version)| pb::CatalogVersion { tenant, version }).collect(),
        }))
    }

    async fn observe(&self, request: Request<pb::ObserveRequest>) -> Answer<pb::ObserveResponse> {
        let missed = self.0.missed(calls::id(&request.into_inner().store)?);
        let missed_ms = u64::try_from(missed.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(pb::ObserveResponse { missed_ms, sound: self.0.is_sound() }))
    }

    async fn leave(&self, request: Request<pb::LeaveRequest>) -> Answer<pb::LeaveResponse> {
        let asked = request.into_inner();
        let me = self.0.me();
        let (progress, done) = match asked.begin {
            true => self.0.drain(me, asked.stop).await?,
            false => self.0.leaving_of(me).await?,
        };
        Ok(Response::new(pb::LeaveResponse { progress, done }))
    }

    async fn accept_loss(&self, _: Request<pb::AcceptLossRequest>) -> Answer<pb::AcceptLossResponse> {
        self.0.accept_own_loss().await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(pb::AcceptLossResponse {}))
    }
}
