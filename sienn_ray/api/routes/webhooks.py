"""Webhooks: make, list, change and delete them, and see what was delivered."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from sienn_ray.access.principals import Scope
from sienn_ray.api.access.scopes import PrincipalDep, needs
from sienn_ray.api.deps import BackendsDep
from sienn_ray.api.http.errors import documented
from sienn_ray.api.lists.paging import MAX_LIMIT, cursor_query
from sienn_ray.api.outbound.destinations import checked_webhook_url
from sienn_ray.api.schemas.ids import DeliveryIdPath, WebhookIdPath
from sienn_ray.api.schemas.webhooks import (
    ChangeWebhookRequest,
    CreatedWebhook,
    CreateWebhookRequest,
    DeletedWebhook,
    Delivery,
    DeliveryList,
    DeliveryStatusName,
    RotateWebhookSecretRequest,
    Webhook,
    WebhookList,
)
from sienn_ray.jobs.schema import utc_now
from sienn_ray.jobs.webhook_schema import DeliveryQuery, WebhookEvent, WebhookRecord
from sienn_ray.jobs.webhook_signatures import new_secret

router = APIRouter(prefix="/api", tags=["Webhooks"])

_READS = [needs(Scope.READ, Scope.TRAIN, Scope.EXPORT)]
_CHANGES = [needs(Scope.TRAIN, Scope.EXPORT)]
_UNAVAILABLE = documented(HTTPStatus.SERVICE_UNAVAILABLE)
_OF_ONE = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
_WITH_URL = documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
_SENDS = {**_OF_ONE, **documented(HTTPStatus.CONFLICT)}


@router.post(
    "/webhooks",
    status_code=HTTPStatus.CREATED,
    summary="Create a webhook",
    responses={**_UNAVAILABLE, **_WITH_URL, **documented(HTTPStatus.CONFLICT)},
    dependencies=_CHANGES,
)
async def create_webhook(
    body: CreateWebhookRequest, backends: BackendsDep, principal: PrincipalDep, response: Response
) -> CreatedWebhook:
    """Be told of what happens to jobs and exports by a signed POST. The secret is in this answer and nowhere else.

    Signatures are those of Standard Webhooks: `webhook-signature` has an HMAC-SHA-256 of `webhook-id`,
    `webhook-timestamp` and the body.
    """
    now, secret = utc_now(), new_secret()
    record = WebhookRecord(
        id=str(uuid.uuid4()),
        owner=principal.owner,
        url=await checked_webhook_url(body.url, backends, principal.owner),
        events=tuple(map(WebhookEvent, body.events)),
        description=body.description,
        is_active=body.is_active,
        created_at=now,
        updated_at=now,
    )
    return _shown_once(await backends.tracker.add_webhook(record, secret), secret, response)


@router.get("/webhooks", summary="List the webhooks", responses=_UNAVAILABLE, dependencies=_READS)
async def list_webhooks(backends: BackendsDep) -> WebhookList:
    """The caller's webhooks, the newest first; an admin sees those of all owners."""
    found = [Webhook.of(record) for record in await backends.tracker.webhooks()]
    return WebhookList(webhooks=found, count=len(found))


@router.get("/webhooks/{webhook_id}", summary="Get a webhook", responses=_OF_ONE, dependencies=_READS)
async def get_webhook(webhook_id: WebhookIdPath, backends: BackendsDep) -> Webhook:
    """One webhook, without its secret."""
    return Webhook.of(await backends.tracker.webhook(webhook_id))


@router.patch(
    "/webhooks/{webhook_id}",
    summary="Change a webhook",
    responses={**_OF_ONE, **_WITH_URL},
    dependencies=_CHANGES,
)
async def change_webhook(
    webhook_id: WebhookIdPath, body: ChangeWebhookRequest, backends: BackendsDep, principal: PrincipalDep
) -> Webhook:
    """Change some fields; the others stay. One that the service has deactivated begins anew with `is_active`."""
    changes = body.changes()
    if "url" in changes.model_fields_set:
        url = await checked_webhook_url(changes.url, backends, principal.owner)
        changes = changes.model_copy(update={"url": url})
    return Webhook.of(await backends.tracker.change_webhook(webhook_id, changes))


@router.delete("/webhooks/{webhook_id}", summary="Delete a webhook", responses=_OF_ONE, dependencies=_CHANGES)
async def delete_webhook(webhook_id: WebhookIdPath, backends: BackendsDep) -> DeletedWebhook:
    """Delete a webhook with its deliveries; what waits isn't sent any more."""
    return DeletedWebhook(webhook_id=(await backends.tracker.delete_webhook(webhook_id)).id)


@router.post(
    "/webhooks/{webhook_id}/rotate-secret",
    summary="Rotate the secret of a webhook",
    responses={**_OF_ONE, **documented(HTTPStatus.UNPROCESSABLE_ENTITY)},
    dependencies=_CHANGES,
)
async def rotate_webhook_secret(
    webhook_id: WebhookIdPath, body: RotateWebhookSecretRequest, backends: BackendsDep, response: Response
) -> CreatedWebhook:
    """Make another secret, and show it this once. Deliveries are signed with both until the grace period is over."""
    secret = new_secret()
    record = await backends.tracker.rotate_webhook_secret(webhook_id, secret, float(body.grace_s))
    return _shown_once(record, secret, response)


@router.post(
    "/webhooks/{webhook_id}/test",
    status_code=HTTPStatus.ACCEPTED,
    summary="Send a ping to a webhook",
    responses=_SENDS,
    dependencies=_CHANGES,
)
async def test_webhook(webhook_id: WebhookIdPath, backends: BackendsDep) -> Delivery:
    """Send a `webhook.ping`, signed as everything else; the deliveries say how that went."""
    return Delivery.of(await backends.tracker.ping_webhook(webhook_id))


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    summary="List the deliveries of a webhook",
    responses={**_OF_ONE, **documented(HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)},
    dependencies=_READS,
)
async def list_deliveries(
    webhook_id: WebhookIdPath,
    backends: BackendsDep,
    status: Annotated[
        DeliveryStatusName | None, Query(description="Deliveries with this status.", examples=["failed"])
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Deliveries on one page.", examples=[100])] = 100,
    cursor: Annotated[str | None, cursor_query("NDI=")] = None,
) -> DeliveryList:
    """Deliveries to a webhook, made or waiting, the newest first, page by page."""
    page = await backends.tracker.webhook_deliveries(webhook_id, DeliveryQuery(status, limit, cursor))
    shown = [Delivery.of(record) for record in page.deliveries]
    return DeliveryList(deliveries=shown, count=page.count, next_cursor=page.next_cursor)


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=HTTPStatus.ACCEPTED,
    summary="Deliver something once more",
    responses=_SENDS,
    dependencies=_CHANGES,
)
async def redeliver(webhook_id: WebhookIdPath, delivery_id: DeliveryIdPath, backends: BackendsDep) -> Delivery:
    """Send the same once more, under the same `webhook-id`; one that waits for its next attempt has it now."""
    return Delivery.of(await backends.tracker.redeliver(webhook_id, delivery_id))


def _shown_once(record: WebhookRecord, secret: str, response: Response) -> CreatedWebhook:
    response.headers["Cache-Control"] = "no-store"
    return CreatedWebhook.with_secret(record, secret)
