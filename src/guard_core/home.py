"""An opened TRAINGUARD_HOME: the place where the kernel's parts are put together.

::

    with Home.open() as home:
        principal = home.principal(tenant="acme")
        decision = home.decide("guard/dataset/use/decision", {...}, principal=principal,
                               enforcement=Enforcement.COOPERATIVE)

Opening makes the folder (0700) and the database when they are missing, repairs what a crash left in the
audit log, and loads neither SQLAlchemy nor the policy engine until something asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from guard_core.attestation import PRIVATE_KEY, Signer
from guard_core.audit.head import ANCHOR_FILE
from guard_core.audit.log import AuditLog
from guard_core.clock import Clock, system_clock
from guard_core.config import Settings, load_settings
from guard_core.errors import UserError
from guard_core.findings import Enforcement
from guard_core.identity import Credentials, Principal
from guard_core.plugins import offered
from guard_core.policy.decision import Decision, PolicyEngine
from guard_core.storage import Storage

if TYPE_CHECKING:
    from guard_core.policy.aside import Aside
    from guard_core.policy.asking import Asking
    from guard_core.policy.bundle import Bundle

FACTS_GROUP = "trainguard.dataset_facts"


class Home:
    """An opened TRAINGUARD_HOME. Pickles as its settings and clock, and opens anew where it arrives."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.storage = Storage.in_home(settings.home, settings.storage_url)
        self.credentials = Credentials(self.storage, clock, self.settings.oidc)
        self._signer: Signer | None = None
        self._signer_stamp: tuple[int, int] | None = None
        self.audit = AuditLog(
            settings.home / "audit",
            signer=lambda: self.signer,
            clock=clock,
            anchor=settings.home / "keys" / ANCHOR_FILE,
            masked=self._masked if settings.audit.mask_on_write else None,
        )

    @classmethod
    def open(cls, settings: Settings | None = None, *, clock: Clock = system_clock) -> Home:
        """Open (and make, at first use) the home that ``settings`` names.

        Raises UserError when the folder cannot be made or written, Undecidable for storage trouble.
        """
        home = cls(settings if settings is not None else load_settings(), clock)
        root = home.settings.home
        try:
            if not root.is_dir():
                root.mkdir(parents=True, mode=0o700)
                (root / ".gitignore").write_text(
                    "# keys, credentials and state never belong in version control\n*\n"
                )
            home.storage.upgrade()
            home.audit.recover()
        except OSError as error:
            raise UserError(
                f"the home directory {root} cannot be used ({error.strerror or error}); "
                "choose another with --home or TRAINGUARD_HOME"
            ) from error
        return home

    def __enter__(self) -> Home:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (self.settings, self.clock))

    def close(self) -> None:
        """Give database connections back, and end the process that answers questions, if there is one."""
        self.storage.close()
        if "aside" in self.__dict__:
            self.aside.close()

    def path(self, *parts: str) -> Path:
        """A path below the home directory."""
        return self.settings.home.joinpath(*parts)

    @property
    def signer(self) -> Signer:
        """The home's signing key, made at first use, opened again after a rotation. Raises UserError."""
        stamp = self._key_stamp()
        if self._signer is None or stamp != self._signer_stamp:
            given = self.settings.signing_key_pem or self.settings.signing_key
            self._signer = Signer.open(self.path("keys"), given)
            self._signer_stamp = self._key_stamp()
        return self._signer

    def _key_stamp(self) -> tuple[int, int] | None:
        try:
            found = (self.settings.signing_key or self.path("keys", PRIVATE_KEY)).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    @cached_property
    def policy(self) -> PolicyEngine:
        """The policy engine that the settings name: with a policy store, what the store has in force.

        Raises UserError for a broken policy directory, Tampered for a policy store that was changed.
        """
        from guard_core.policy.lifecycle.opening import engine_of

        return engine_of(self)

    def _masked(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        from guard_core.audit.masked import Masks

        return Masks(lambda: self.policy, self.clock).written(record)

    @cached_property
    def _bundle(self) -> Bundle:
        from guard_core.policy.lifecycle.opening import bundle_of

        return bundle_of(self)

    def policy_data(self) -> dict[str, Any]:
        """``data.guard.config`` in force: tenants, quotas, thresholds, nodes, ..."""
        from guard_core.policy.lifecycle.active import ActivePolicies

        live = self.settings.policy.dir is None and self.settings.policy.engine == "embedded"
        if live and isinstance(self.policy, ActivePolicies):
            return dict(self.policy.bundle.config)
        return dict(self._bundle.config)

    def tenants(self) -> dict[str, Any]:
        """The tenants that policy data knows, by name."""
        tenants = self.policy_data().get("tenants", {})
        return dict(tenants) if isinstance(tenants, Mapping) else {}

    def principal(self, *, tenant: str | None = None) -> Principal:
        """Who is asking: by the settings' token, else the home's local token.

        ``tenant`` asks to act for that tenant: Denied unless it is the credential's own or a platform
        admin asks, UserError when policy data does not know it.
        """
        token = self.settings.token
        text = token.get_secret_value() if token else self.credentials.local_token(self.path("credentials"))
        principal = self.credentials.verify(text)
        if tenant is None or tenant == principal.tenant:
            return principal
        acting = principal.acting_for(tenant)
        if tenant not in self.tenants():
            known = ", ".join(sorted(self.tenants())) or "none"
            raise UserError(
                f"there is no tenant {tenant!r} in the policy data (known: {known}); add it to tenants.yaml"
            )
        return acting

    def decide(
        self,
        path: str,
        input: Mapping[str, Any],  # noqa: A002 - OPA's word, and every policy's
        *,
        principal: Principal,
        enforcement: Enforcement,
        subject: str = "",
    ) -> Decision:
        """Ask policy, and put the answer on record before anyone can act on it.

        ``input.principal`` is always the verified ``principal``; ``input.now_ns`` the clock's unless given.
        Policy trouble is not raised: it is a decision that does not allow (:attr:`Decision.undecidable`).
        Raises Undecidable when the record cannot be written, because then nothing may happen.
        """
        return self.decide_many(path, [(input, principal, subject)], enforcement=enforcement)[0]

    def decide_many(
        self,
        path: str,
        questions: Sequence[tuple[Mapping[str, Any], Principal, str]],
        *,
        enforcement: Enforcement,
    ) -> list[Decision]:
        """:meth:`decide` for several (input, principal, subject), put on record in one write: all or none."""
        return self.ask_many(path, questions, enforcement=enforcement).decided()

    def ask_many(
        self,
        path: str,
        questions: Sequence[tuple[Mapping[str, Any], Principal, str]],
        *,
        enforcement: Enforcement,
    ) -> Asking:
        """:meth:`decide_many` for who has something else to do first: many are answered in the meantime."""
        from guard_core.policy.asking import Asking

        return Asking(self, path, questions, enforcement)

    @cached_property
    def aside(self) -> Aside:
        """Where many questions at once are answered beside this process."""
        from guard_core.policy.aside import Aside

        return Aside()

    def decision_record(self, decision_id: str) -> dict[str, Any] | None:
        """The audit record of a decision, None when there is none (found through the storage's index)."""
        from guard_core.audit.index import DecisionIndex

        return DecisionIndex(self.storage, self.audit).find(decision_id)

    def dataset_facts(self, refs: Sequence[str], *, principal: Principal) -> list[dict[str, Any]]:
        """What is known of the datasets ``refs``, one fact each in their order, for policy input.

        Answered by the installed package that keeps the registry (``trainguard.dataset_facts``).
        Raises UserError when no such package is installed.
        """
        if not refs:
            return []
        found = sorted(offered(FACTS_GROUP), key=lambda e: e.name)
        if not found:
            raise UserError("no package that keeps datasets is installed; run: pip install trainguard")
        provider = found[0].load()
        facts: list[dict[str, Any]] = provider(self, list(refs), principal=principal)
        return facts


def _reopen(settings: Settings, clock: Clock) -> Home:
    return Home.open(settings, clock=clock)
