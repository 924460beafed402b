/** What is wrong with the whole page, and what can be done about it. */

import type { ParameterFault } from '@client';
import { useHealth } from './answers';
import { useNow } from './now';
import { lasting, time } from './numbers';
import type { Failure } from './questions';
import type { Session } from './session';
import { isZone } from './calendar';
import { show, spanOf, type View } from './view';

export function Trouble({ view, session }: { view: View; session: Session }) {
  const { failure, retryAt, freshness } = useHealth();
  const now = useNow(1000);
  if (!failure) return null;
  const wait = retryAt === null ? null : Math.max(1, Math.ceil((retryAt - now.getTime()) / 1000));
  const through = freshness?.counted_through;
  const nearest = failure.status === 400 ? mended(view, failure.problem?.errors ?? []) : null;
  return (
    <section className="trouble" role="alert" data-status={failure.status}>
      <div>
        <h2>{titleOf(failure)}</h2>
        <p>
          {failure.message}
          {through && retryAt !== null && ` The numbers below are those of ${time(new Date(through), view.zone)}.`}
          {wait !== null && ` Next try in ${lasting(wait)}.`}
        </p>
        {failure.problem && <p className="hint">Request {failure.problem.request_id}</p>}
      </div>
      {nearest && (
        <button type="button" className="primary" onClick={() => show(nearest)}>
          Show the nearest question that has an answer
        </button>
      )}
      {failure.status === 403 && session.role === 'system_admin' && (
        <button type="button" onClick={() => show({ ...view, org: null })}>
          All organizations
        </button>
      )}
    </section>
  );
}

function titleOf({ status }: Failure): string {
  switch (status) {
    case 0:
      return 'The service cannot be reached';
    case 400:
      return 'This question has no exact answer';
    case 403:
      return 'This token may not read this';
    case 429:
      return 'Too many questions at once';
    case 503:
      return 'The numbers cannot be read at the moment';
    case 504:
      return 'This question took too long';
    default:
      return 'Something went wrong';
  }
}

/** The view with all of the changes that a 400 asks for; null if it names none that this page can make. */
export function mended(view: View, errors: ParameterFault[]): View | null {
  let next = view;
  const span = spanOf(view, new Date());
  const set = (parameter: string, value: string) => {
    const text = (at: Date) => at.toISOString().replace('.000Z', 'Z');
    const custom = { range: 'custom', from: next.from ?? text(span.start), to: next.to ?? text(span.end) };
    const isInstant = !Number.isNaN(Date.parse(value));
    if (parameter === 'start_time' && isInstant) next = { ...next, ...custom, from: value };
    else if (parameter === 'end_time' && isInstant) next = { ...next, ...custom, to: value };
    else if (parameter === 'bucket_width') next = { ...next, width: value as View['width'] };
    else if (parameter === 'time_zone' && isZone(value)) next = { ...next, zone: value };
  };
  for (const { parameter, allowed = [] } of errors) {
    if (parameter === 'period') {
      for (const change of allowed) {
        const [name = '', value = ''] = change.split('=');
        set(name, value);
      }
    } else if (allowed[0] !== undefined) set(parameter, allowed[0]);
  }
  return next === view ? null : next;
}
