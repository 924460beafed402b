/** The running month against the same days of the last one, and where it is heading. */

import type { TotalMeasures } from '@client';
import { useUsage } from '../answers';
import { sameDaysOfLastMonth } from '../calendar';
import { change } from '../money';
import { useNow } from '../now';
import { amount, brief, cents, changed, count, day, exact, money, monthName, range, rate } from '../numbers';
import { filtersOf, type Measure, type View } from '../view';

const TITLES: Record<Measure, string> = { total_tokens: 'Tokens', cost: 'Cost', requests: 'Requests', errors: 'Errors' };

export function Month({ view, mine }: { view: View; mine: boolean }) {
  const now = useNow(60_000);
  const before = sameDaysOfLastMonth(now, view.zone);
  const shared = { time_zone: view.zone, bucket_width: 'all' as const, ...filtersOf(view) };
  const running = useUsage(view.org, { period: 'this_month', ...shared });
  const written = (at: Date) => at.toISOString().replace('.000Z', 'Z');
  const last = useUsage(view.org, { start_time: written(before.start), end_time: written(before.end), ...shared });
  const totals = running.data?.totals;
  const projection = running.data?.projection ?? null;
  const name = running.data ? monthName(monthOf(running.data.range.start_time, view.zone)) : 'This month';
  return (
    <section className="month" aria-labelledby="month-title">
      <header>
        <h2 id="month-title">
          {mine ? 'Your ' : ''}
          {name} so far
        </h2>
        <p className="hint">compared with the same days of last month, {range(before.start, before.end, view.zone)}</p>
      </header>
      <div className="cards" aria-busy={!totals && !running.isError}>
        {(['cost', 'total_tokens', 'requests', 'errors'] as const).map((measure) => (
          <Card
            key={measure}
            measure={measure}
            totals={totals}
            before={last.isPlaceholderData ? undefined : last.data?.totals}
            heading={
              projection && measure !== 'errors'
                ? `${measure === 'cost' ? cents(projection.cost) : brief(projection[measure])} by ${day(new Date(new Date(projection.end_time).getTime() - 1), view.zone)}`
                : null
            }
            elapsed={projection && measure !== 'errors' ? projection.elapsed : null}
          />
        ))}
      </div>
    </section>
  );
}

/** The month of an instant, as `2026-11`. */
const monthOf = (start: string, zone: string) =>
  new Intl.DateTimeFormat('sv', { timeZone: zone, year: 'numeric', month: '2-digit' }).format(new Date(start));

interface CardProps {
  measure: Measure;
  totals: TotalMeasures | undefined;
  before: TotalMeasures | undefined;
  heading: string | null;
  elapsed: number | null;
}

function Card({ measure, totals, before, heading, elapsed }: CardProps) {
  return (
    <article className="card" data-card={measure}>
      <h3>{TITLES[measure]}</h3>
      {totals ? (
        <>
          <p className="figure">
            <data value={measure === 'cost' ? totals.cost : totals[measure]} title={exact(totals, measure)}>
              {measure === 'cost' ? cents(totals.cost) : brief(totals[measure])}
            </data>
            <Change now={totals} before={before} measure={measure} />
          </p>
          <p className="hint exact">
            {measure === 'errors' ? `${count(totals.errors)}, ${rate(totals.error_rate)} of all requests` : measure === 'cost' ? money(totals.cost) : count(totals[measure])}
          </p>
          <p className="hint">
            {heading && elapsed !== null ? (
              <>
                <span className="elapsed" aria-hidden="true">
                  <span style={{ width: `${elapsed * 100}%` }} />
                </span>
                heading for {heading}
              </>
            ) : measure === 'errors' ? (
              'all that did not succeed'
            ) : (
              'no projection on the first day'
            )}
          </p>
        </>
      ) : (
        <div className="skeleton" role="status" aria-label="Loading">
          <span style={{ width: '60%' }} />
          <span style={{ width: '80%' }} />
        </div>
      )}
    </article>
  );
}

function Change({ now, before, measure }: { now: TotalMeasures; before: TotalMeasures | undefined; measure: Measure }) {
  if (!before) return null;
  const tenths = change(amount(now, measure), amount(before, measure));
  const was = `${exact(before, measure)} in the same days of last month`;
  if (tenths === null) {
    return (
      <span className="change" data-before={measure === 'cost' ? before.cost : before[measure]} title={was}>
        was {measure === 'cost' ? cents(before.cost) : '0'}
      </span>
    );
  }
  const way = tenths > 0 ? 'up' : tenths < 0 ? 'down' : 'same';
  return (
    <span className="change" data-way={way} data-before={measure === 'cost' ? before.cost : before[measure]} title={was}>
      <span aria-hidden="true">{{ up: '▲', down: '▼', same: '=' }[way]}</span> {changed(tenths)}
    </span>
  );
}
