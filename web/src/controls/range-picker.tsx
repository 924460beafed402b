import { useState, type FormEvent } from 'react';
import { date, days, months } from '../calendar';
import { monthName, range } from '../numbers';
import { PERIODS, show, spanOf, type Period, type View } from '../view';
import { Popover } from './popover';

const NAMES: Record<Period, string> = {
  last_24h: '24 hours',
  last_7d: '7 days',
  last_30d: '30 days',
  this_month: 'This month',
  last_month: 'Last month',
};

export function RangePicker({ view, now }: { view: View; now: Date }) {
  const go = (range: string) => show({ ...view, range, from: null, to: null });
  const span = spanOf(view, now);
  const isPeriod = PERIODS.includes(view.range as Period);
  const other = () => (view.range === 'custom' ? range(span.start, span.end, view.zone) : monthName(view.range));
  return (
    <>
      <fieldset className="segments">
        <legend className="sr">Range</legend>
        {PERIODS.map((period) => (
          <label key={period}>
            <input type="radio" name="range" checked={view.range === period} onChange={() => go(period)} />
            <span>{NAMES[period]}</span>
          </label>
        ))}
      </fieldset>
      <Popover label={isPeriod ? 'Other range' : other()} active={!isPeriod}>
        {(close) => (
          <>
            <Days view={view} now={now} onDone={close} />
            <h2>A month</h2>
            <ul className="months">
              {months(now, view.zone).map((month) => (
                <li key={month}>
                  <button
                    type="button"
                    className="quiet"
                    aria-pressed={view.range === month}
                    onClick={() => {
                      go(month);
                      close();
                    }}
                  >
                    {monthName(month)}
                  </button>
                </li>
              ))}
            </ul>
          </>
        )}
      </Popover>
    </>
  );
}

/** From one local day to another. */
function Days({ view, now, onDone }: { view: View; now: Date; onDone: () => void }) {
  const span = spanOf(view, now);
  const [first, setFirst] = useState(date(span.start, view.zone));
  const [last, setLast] = useState(date(new Date(span.end.getTime() - 1), view.zone));
  const isRight = first !== '' && last !== '' && first <= last;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (!isRight) return;
    const { start, end } = days(first, last, view.zone);
    const text = (at: Date) => at.toISOString().replace('.000Z', 'Z');
    show({ ...view, range: 'custom', from: text(start), to: text(end) });
    onDone();
  };
  return (
    <form className="days" onSubmit={submit}>
      <label>
        First day
        <input type="date" value={first} onChange={(event) => setFirst(event.target.value)} />
      </label>
      <label>
        Last day
        <input type="date" value={last} onChange={(event) => setLast(event.target.value)} />
      </label>
      <button type="submit" className="primary" disabled={!isRight}>
        Show
      </button>
    </form>
  );
}
