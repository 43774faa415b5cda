"""Whether an authority's key signed what was fetched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from agent.certificate import Certificate, parse

# Collisions in these can be made at will or at a price, so a signature over them proves nothing
# (RFC 6151, RFC 6194).
_BROKEN_HASHES: Final = frozenset({"md5", "sha1"})


@dataclass(frozen=True, slots=True)
class Signed:
    """Something signed, by whom is not said yet. `algorithm` None means that nothing is hashed."""

    signature: bytes = field(repr=False)
    content: bytes | memoryview = field(repr=False)
    algorithm: hashes.HashAlgorithm | None
    rsa_padding: padding.PKCS1v15 | padding.PSS
    digest: bytes | None

    @classmethod
    def read(
        cls,
        signature: bytes,
        content: bytes | memoryview,
        algorithm: hashes.HashAlgorithm | None,
        parameters: object = None,
    ) -> Self:
        """Hash the content; ValueError when the hash is a broken one.

        Other threads run meanwhile: hashlib lets go of the interpreter, where the library's own
        check of a list of 20 MiB holds it for 0.7 s.
        """
        hashed = None
        if algorithm is not None:
            if algorithm.name in _BROKEN_HASHES:
                raise ValueError(f"is signed with {algorithm.name}, which proves nothing")
            hashed = hashlib.new(algorithm.name.replace("-", "_"), content).digest()
        scheme = parameters if isinstance(parameters, padding.PSS) else padding.PKCS1v15()
        return cls(signature, content, algorithm, scheme, hashed)

    def by(self, authority: Certificate) -> bool:
        """Tell whether the authority's key made the signature."""
        try:
            key = parse(authority.der).public_key()
            match key:
                case rsa.RSAPublicKey() if self.algorithm and self.digest:
                    scheme = Prehashed(self.algorithm)
                    key.verify(self.signature, self.digest, self.rsa_padding, scheme)
                case ec.EllipticCurvePublicKey() if self.algorithm and self.digest:
                    scheme = Prehashed(self.algorithm)
                    key.verify(self.signature, self.digest, ec.ECDSA(scheme))
                case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() if not self.algorithm:
                    key.verify(self.signature, self.content)
                case _:
                    return False
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True
