/** A list with shares: who or what used how much. A click looks into one of its lines. */

import { useMemo, useState } from 'react';
import { useList } from '../answers';
import { Id, shortened } from '../id';
import { permille } from '../money';
import { amount, count, parts, rate } from '../numbers';
import { KEY_OF, type Line, type List, type ListQuery } from '../questions';
import { filtersOf, rangeOf, show, type Measure, type View } from '../view';
import { emptyOf } from './over';
import { Panel } from './panel';

/** Lines that are asked for; all others are one line. */
const LIMIT = 100;
/** Lines that are shown at first. */
const FEW = 8;
const COLUMNS: [Measure, string][] = [
  ['total_tokens', 'Tokens'],
  ['cost', 'Cost'],
  ['requests', 'Requests'],
  ['errors', 'Errors'],
];

interface Sort {
  measure: Measure;
  isUp: boolean;
}

export function Breakdown({ ask, title, view }: { ask: List; title: string; view: View }) {
  const query: ListQuery = { ...rangeOf(view), time_zone: view.zone, limit: LIMIT, ...filtersOf(view) };
  const { data: answer, isError, isPlaceholderData } = useList(ask, view.org, query);
  const [chosen, setSort] = useState<Sort | null>(null);
  const [isLong, setLong] = useState(false);
  // The page's measure, until a column is clicked.
  const sort = useMemo(() => chosen ?? { measure: view.measure, isUp: false }, [chosen, view.measure]);
  const lines = useMemo(() => sorted(answer?.data ?? [], sort), [answer?.data, sort]);
  const shown = isLong ? lines : lines.slice(0, FEW);
  const whole = answer ? amount(answer.totals, sort.measure) : 0n;
  // Bars are as long as the largest line's is wide: many small shares can be told apart.
  const largest = lines.reduce((most, line) => (!line.other && amount(line, sort.measure) > most ? amount(line, sort.measure) : most), 1n);
  const hasOther = lines.some(({ other }) => other);
  return (
    <Panel
      title={title}
      question={{ ask, org: view.org, query }}
      size="list"
      isPending={!answer}
      isFailed={isError}
      isOld={isPlaceholderData}
      empty={answer && lines.length === 0 ? emptyOf(view) : null}
    >
      <div className="scroll" role="region" aria-label={`${title}, sortable`} tabIndex={0}>
        <table className="lines">
          <thead>
            <tr>
              <th scope="col">{title === 'API keys' ? 'API key' : title.slice(0, -1)}</th>
              {COLUMNS.map(([measure, name]) => (
                <Head key={measure} name={name} measure={measure} sort={sort} onSort={setSort} />
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((line) => (
              <Row
                key={line[KEY_OF[ask]] ?? ''}
                line={line}
                ask={ask}
                view={view}
                share={permille(amount(line, sort.measure), whole)}
                bar={Math.min(1000, permille(amount(line, sort.measure), largest))}
              />
            ))}
          </tbody>
        </table>
      </div>
      {hasOther && <p className="hint">The {LIMIT} with the most tokens, sorted; all others are one line.</p>}
      {lines.length > FEW && (
        <button type="button" className="link" aria-expanded={isLong} onClick={() => setLong(!isLong)}>
          {isLong ? 'Show fewer' : `Show all ${lines.length}`}
        </button>
      )}
    </Panel>
  );
}

/** Of lines; those that are all others stay last. */
function sorted(lines: Line[], { measure, isUp }: Sort): Line[] {
  const compare = (a: Line, b: Line) => {
    const [x, y] = [amount(a, measure), amount(b, measure)];
    return Number(a.other) - Number(b.other) || (x === y ? 0 : x < y === isUp ? -1 : 1);
  };
  return [...lines].sort(compare);
}

function Head({ name, measure, sort, onSort }: { name: string; measure: Measure; sort: Sort; onSort: (sort: Sort) => void }) {
  const isSorted = sort.measure === measure;
  return (
    <th scope="col" aria-sort={isSorted ? (sort.isUp ? 'ascending' : 'descending') : 'none'}>
      <button type="button" onClick={() => onSort({ measure, isUp: isSorted && !sort.isUp })}>
        {name}
        <span aria-hidden="true">{isSorted ? (sort.isUp ? ' ↑' : ' ↓') : ''}</span>
      </button>
    </th>
  );
}

/** The view of one line. */
function into(view: View, ask: List, key: string): View {
  if (ask === 'orgs') return { ...view, org: key, split: view.split === 'org_id' ? 'model' : view.split };
  const field = KEY_OF[ask] as Exclude<(typeof KEY_OF)[List], 'org_id'>;
  return { ...view, filters: { ...view.filters, [field]: [key] } };
}

function Row({ line, ask, view, share, bar }: { line: Line; ask: List; view: View; share: number; bar: number }) {
  const key = line[KEY_OF[ask]] ?? null;
  const [cost, rest] = parts(line.cost);
  return (
    <tr data-line={key ?? 'other'}>
      <th scope="row">
        <span className="name">
          {key === null ? (
            <span className="muted">all others</span>
          ) : (
            <>
              <button type="button" className="link" title={key} onClick={() => show(into(view, ask, key))}>
                <bdi>{shortened(key)}</bdi>
              </button>
              {ask !== 'models' && <Id value={key} bare />}
            </>
          )}
          <span className="rest part">{rate(share / 1000)}</span>
        </span>
        <span className="share" aria-hidden="true">
          <span style={{ width: `${bar / 10}%` }} />
        </span>
      </th>
      <td data-of="total_tokens">{count(line.total_tokens)}</td>
      <td data-of="cost">
        {cost}
        {rest && <span className="rest">{rest}</span>}
      </td>
      <td data-of="requests">{count(line.requests)}</td>
      <td data-of="errors">
        {count(line.errors)} <span className="rest">{rate(line.error_rate)}</span>
      </td>
    </tr>
  );
}
