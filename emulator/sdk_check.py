#!/usr/bin/env python3
"""Lets the official SDKs talk to the emulator, and prints what they saw.

    python3 -m venv sdk
    sdk/bin/pip install alibabacloud_kms20160120 alibabacloud_sts20150401 \
        alibabacloud_credentials aliyun-python-sdk-kms aliyun-python-sdk-sts
    cargo build -p kms-emulator
    sdk/bin/python emulator/sdk_check.py target/debug/kms-emulator

Ends with status 1 if something is not as expected.
"""

import json
import signal
import subprocess
import sys
import urllib.request

from alibabacloud_credentials.provider.ecs_ram_role import EcsRamRoleCredentialsProvider
from alibabacloud_kms20160120.client import Client as Kms
from alibabacloud_kms20160120 import models as kms_models
from alibabacloud_sts20150401.client import Client as Sts
from alibabacloud_sts20150401 import models as sts_models
from alibabacloud_tea_openapi.models import Config
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.auth.credentials import StsTokenCredential
from aliyunsdkkms.request.v20160120.GetSecretValueRequest import GetSecretValueRequest
from aliyunsdksts.request.v20150401.AssumeRoleRequest import AssumeRoleRequest
from aliyunsdksts.request.v20150401.GetCallerIdentityRequest import GetCallerIdentityRequest

ID, SECRET = "LTAIsdkcheck", "sdk-check-secret"
ROLE = "acs:ram::1234567890123456:role/reader"
failures = 0


def check(what, got, wanted):
    global failures
    good = got == wanted
    failures += not good
    print(f"{'ok  ' if good else 'FAIL'} {what}: {got!r}" + ("" if good else f", wanted {wanted!r}"))


class Emulator:
    def __init__(self, binary):
        command = [binary, "--listen", "127.0.0.1:0", "--access-key", f"{ID}:{SECRET}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.origin = self.process.stdout.readline().strip()
        self.endpoint = self.origin.removeprefix("http://")

    def admin(self, path, body):
        request = urllib.request.Request(f"{self.origin}/_emulator/{path}", json.dumps(body).encode())
        return json.load(urllib.request.urlopen(request))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(5)


def config(emulator, key=ID, secret=SECRET, token=None):
    return Config(access_key_id=key, access_key_secret=secret, security_token=token,
                  protocol="http", endpoint=emulator.endpoint, region_id="cn-hangzhou")


def new_read(client, name, **more):
    """The body of an answer, or (status, code, retry_after) of a refusal."""
    try:
        return client.get_secret_value(kms_models.GetSecretValueRequest(secret_name=name, **more)).body
    except Exception as refusal:
        status = getattr(refusal, "status_code", None)
        code = getattr(refusal, "code", type(refusal).__name__)
        return status, code, getattr(refusal, "retry_after", None)


def old_call(client, emulator, request, **params):
    request.set_endpoint(emulator.endpoint)
    request.set_protocol_type("http")
    request.set_accept_format("json")
    for name, value in params.items():
        getattr(request, f"set_{name}")(value)
    try:
        return json.loads(client.do_action_with_exception(request))
    except ServerException as refusal:
        return refusal.get_http_status(), refusal.get_error_code()


def check_new_kms(emulator):
    client = Kms(config(emulator))
    body = new_read(client, "app/config")
    check("new SDK reads text", (body.secret_data, body.version_id, body.secret_type), ("hello ✓", "v1", "Generic"))
    check("new SDK reads stages", body.version_stages.version_stage, ["ACSCurrent"])
    check("new SDK reads binary", new_read(client, "app/key").secret_data, "AP8Q")
    managed = new_read(client, "app/db", fetch_extended_config=True)
    check("new SDK reads rotation", (managed.automatic_rotation, managed.rotation_interval), ("Enabled", "3600s"))
    check("new SDK reads extended config", json.loads(managed.extended_config)["SecretSubType"], "DoubleUsers")
    check("new SDK, no such secret", new_read(client, "none"), (404, "Forbidden.ResourceNotFound", None))
    check("new SDK, dry run", new_read(client, "app/config", dry_run="true"), (400, "DryRunOperationError", None))
    check("new SDK, wrong secret", new_read(Kms(config(emulator, secret="no")), "x"), (400, "SignatureDoesNotMatch", None))
    check("new SDK, wrong key", new_read(Kms(config(emulator, key="no")), "x"), (404, "InvalidAccessKeyId.NotFound", None))
    fault = {"code": "Throttling.User", "headers": [["x-acs-retry-after", "250"]], "times": 1}
    emulator.admin("faults/add", fault)
    check("new SDK, throttled", new_read(client, "app/config"), (400, "Throttling.User", 250))
    emulator.admin("faults/add", {"code": "InternalFailure", "xml": True, "times": 1})
    check("new SDK, 500 in XML", new_read(client, "app/config"), (500, "InternalFailure", None))
    described = client.describe_secret(kms_models.DescribeSecretRequest(secret_name="app/db")).body
    check("new SDK describes", described.arn, "acs:kms:cn-hangzhou:1234567890123456:secret/app/db")
    versions = client.list_secret_version_ids(kms_models.ListSecretVersionIdsRequest(secret_name="app/config")).body
    check("new SDK lists versions", [v.version_id for v in versions.version_ids.version_id], ["v1"])
    check_new_batch(client)
    put = kms_models.PutSecretValueRequest(secret_name="app/config", version_id="v2", secret_data="two")
    client.put_secret_value(put)
    check("new SDK puts", new_read(client, "app/config").secret_data, "two")


def check_new_batch(client):
    item = kms_models.BatchGetSecretValueRequestSecretsList
    arn = "acs:kms:cn-hangzhou:1234567890123456:secret/app/config"
    items = [item(secret_name=arn), item(secret_name="none"), item(secret_name="app/db", fetch_extended_config="true")]
    body = client.batch_get_secret_value(kms_models.BatchGetSecretValueRequest(secrets_list=items)).body
    first, second = body.secret_values
    check("new SDK reads a batch", (first.secret_name, first.secret_data), (arn, "hello ✓"))
    check("new SDK reads stages in a batch", first.version_stages.version_stage, ["ACSCurrent"])
    check("new SDK reads extended config in a batch", json.loads(second.extended_config)["SecretSubType"], "DoubleUsers")
    errors = [(e.secret_name, e.code, str(e.http_status)) for e in body.errors]
    check("new SDK reads errors of a batch", errors, [("none", "Forbidden.ResourceNotFound", "404")])


def check_credentials(emulator):
    """The metadata service, as the credentials library asks it; the address is fixed there."""
    emulator.admin("metadata", {"role": "worker", "mode": "V2Only"})
    provider = EcsRamRoleCredentialsProvider(disable_imds_v1=True, async_update_enabled=False)
    provider._EcsRamRoleCredentialsProvider__metadata_service_host = emulator.endpoint
    keys = provider.get_credentials()
    parts = keys.get_access_key_id(), keys.get_access_key_secret(), keys.get_security_token()
    check("the instance's role reads", new_read(Kms(config(emulator, *parts)), "app/config").secret_data, "two")


def check_new_sts(emulator):
    client = Sts(config(emulator))
    me = client.get_caller_identity().body
    check("new SDK, who am I", (me.account_id, me.arn), ("1234567890123456", f"acs:ram::1234567890123456:user/{ID}"))
    request = sts_models.AssumeRoleRequest(role_arn=ROLE, role_session_name="ns.store", duration_seconds=900)
    session = client.assume_role(request).body.credentials
    keys = session.access_key_id, session.access_key_secret
    assumed = Kms(config(emulator, *keys, session.security_token))
    check("new SDK reads as a role", new_read(assumed, "app/config").secret_data, "two")
    check("new SDK, role without token", new_read(Kms(config(emulator, *keys)), "x"), (400, "MissingSecurityToken", None))


def check_old(emulator):
    client = AcsClient(ID, SECRET, "cn-hangzhou")
    read = lambda client, name: old_call(client, emulator, GetSecretValueRequest(), SecretName=name)
    check("old SDK reads text", read(client, "app/config")["SecretData"], "two")
    check("old SDK, no such secret", read(client, "none"), (404, "Forbidden.ResourceNotFound"))
    wrong = read(AcsClient(ID, "no", "cn-hangzhou"), "app/config")
    # The SDK compares the echoed string to sign with its own, and names the wrong secret only if they are equal.
    check("old SDK, wrong secret", wrong, (400, "InvalidAccessKeySecret"))
    me = old_call(client, emulator, GetCallerIdentityRequest())
    check("old SDK, who am I", me["AccountId"], "1234567890123456")
    session = old_call(client, emulator, AssumeRoleRequest(), RoleArn=ROLE, RoleSessionName="ns.store")["Credentials"]
    parts = session["AccessKeyId"], session["AccessKeySecret"], session["SecurityToken"]
    assumed = AcsClient(region_id="cn-hangzhou", credential=StsTokenCredential(*parts))
    check("old SDK reads as a role", read(assumed, "app/config")["SecretData"], "two")


def main():
    emulator = Emulator(sys.argv[1])
    try:
        emulator.admin("secrets/put", {"name": "app/config", "text": "hello ✓"})
        emulator.admin("secrets/put", {"name": "app/key", "base64": "AP8Q"})
        managed = {"kind": "Rds", "interval": 3600, "accounts": "Dual"}
        emulator.admin("secrets/put", {"name": "app/db", "managed": managed})
        check_new_kms(emulator)
        check_new_sts(emulator)
        check_old(emulator)
        check_credentials(emulator)
    finally:
        check("SIGTERM ends it", emulator.stop(), 0)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
