package metadata

import (
	"context"
)

func (db *DB) settle(_ context.Context, p *plan, a answer) (Committed, error) {
	return p.result(a)
}
