"""Cases of agent/policy/file.py."""

from making import case

from agent.policy.rule import PrivateKey


def with_key(w, **differently):
    own = w.client_chain[0].subject_public_key_info_sha256
    wanted = {"subject_public_key_info_sha256": own, "encrypted": True, "mode": 0o600}
    return w.evidence(private_key=PrivateKey(**(wanted | differently)))


@case("key_mismatch", "key_mismatch client critical")
def the_key_of_another_certificate(w):
    other = w.server_chain[0].subject_public_key_info_sha256
    return with_key(w, subject_public_key_info_sha256=other)


@case("key_mismatch")
def the_key_of_this_certificate(w):
    return with_key(w)


@case("key_missing", "key_missing client critical")
def a_file_without_a_key(w):
    return with_key(w, subject_public_key_info_sha256=None, encrypted=False, blocks=0)


@case("key_missing")
def a_file_with_a_key(w):
    return with_key(w, blocks=1)


@case("key_multiple", "key_multiple client warning")
def a_file_with_two_keys(w):
    return with_key(w, blocks=2)


@case("key_multiple")
def a_file_with_one_key(w):
    return with_key(w, blocks=1)


@case("key_encrypted_no_passphrase", "key_encrypted_no_passphrase client critical")
def a_key_that_could_not_be_opened(w):
    return with_key(w, subject_public_key_info_sha256=None)


@case("key_encrypted_no_passphrase")
def an_encrypted_key_that_was_opened(w):
    return with_key(w, encrypted=True)


@case("key_unencrypted", "key_unencrypted client info")
def a_key_in_a_file_without_encryption(w):
    return with_key(w, encrypted=False)


@case("key_unencrypted")
def a_key_in_a_credential_without_encryption(w):
    return with_key(w, encrypted=False, mode=None)


@case("key_file_mode", "key_file_mode client critical")
def a_key_that_everybody_can_read(w):
    return with_key(w, mode=0o644)


@case("key_file_mode", "key_file_mode client warning")
def a_key_that_the_group_can_read(w):
    return with_key(w, mode=0o640)


@case("key_file_mode", "key_file_mode client warning")
def a_key_of_another_user(w):
    return with_key(w, mode=0o600, owned=False)


@case("key_file_mode")
def a_key_that_its_owner_alone_can_read(w):
    return with_key(w, mode=0o400)


@case("client_file_changed", "client_file_changed client warning")
def files_that_changed_and_do_not_fit(w):
    return w.evidence(identity_problem="the private key does not belong to the certificate")


@case("client_file_changed")
def files_that_are_in_use(w):
    return w.evidence(identity_problem=None)
