"""${message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


# A table that SQLite makes anew (batch_alter_table) stays STRICT only with table_kwargs={"sqlite_strict": True}, and an
# index on it loses the direction of its columns: make such an index again. There is no way back: queues only grow.
def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
